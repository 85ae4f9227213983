"""One worker process. Each line on its standard input is a number of calls; it makes them and answers one line of JSON.

    python -m rig.training.worker SPEC  # {"steps": 48, "seconds": 0.6, "cpu_s": 0.6, "weights": "4f0a..."}

Pinned to the core of its rank and limited to one thread before TensorFlow starts any.
"""

from __future__ import annotations

import json
import os
import sys
import time

from rig.training.case import NETS, Spec


def main() -> None:
    spec = Spec.parse(sys.argv[1])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[spec.rank % len(cores)]})
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from rig.training.programs import PROGRAMS

    train = PROGRAMS[spec.program](spec)
    for line in sys.stdin:
        calls = int(line)
        began, cpu_began = time.perf_counter(), time.process_time()
        train.calls(calls)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        steps = calls * NETS[spec.case.net].steps_per_call
        report = {"steps": steps, "seconds": seconds, "cpu_s": cpu_s, "weights": train.weights()}
        print(json.dumps(report), file=answers, flush=True)


if __name__ == "__main__":
    main()
