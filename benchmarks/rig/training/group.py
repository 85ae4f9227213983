"""Worker processes that are told how many calls to make, so that all make the same number and none is left waiting.

    window = measure([Spec(..., rank=0), Spec(..., rank=1)], seconds=5.0, folder=folder)

Starting, tracing and finding out how long a call takes are no part of the window.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rig.environment import private
from rig.meter import die_with_parent
from rig.training.case import Spec
from rig.training.window import Report, Window, together
from startup_ray.trainers.backend import worker_environment

LIMIT_S = 180.0
"""For one answer: starting and tracing, or a window."""
FAREWELL_S = 15.0
"""What workers share (sockets, memory) is given back by those that end by themselves."""
TRIAL_S = 0.5
_FROM_CPP = re.compile(r"[IWE]\d{4} |WARNING: All log messages before absl")


def measure(specs: Sequence[Spec], *, seconds: float, folder: Path) -> Window:
    """Start workers, warm up, and measure for at least so many seconds.

    Raises:
        RuntimeError: a worker failed or was silent for LIMIT_S, or workers that synchronise hold different weights.
    """
    with _started(specs, folder) as workers:
        _ask(workers, 1)  # builds the graph
        call_s = _longest(_ask(workers, 1))
        trial = math.ceil(TRIAL_S / call_s)
        call_s = _longest(_ask(workers, trial)) / trial
        reports = _ask(workers, max(1, math.ceil(seconds / call_s)))
    if specs[0].world > 1 and len({report.weights for report in reports}) > 1:
        raise RuntimeError("workers hold different weights")
    return together(reports, specs[0].case.batch)


class _Worker:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.questions, self.answers, self._log = process, process.stdin, process.stdout, log

    def ask(self, calls: int) -> None:
        with suppress(BrokenPipeError):  # its answer will be missing
            self.questions.write(b"%d\n" % calls)
            self.questions.flush()

    def answer(self) -> Report:
        line = self.answers.readline()
        if not line:
            raise RuntimeError(
                f"a worker ended with exit code {self.process.wait(FAREWELL_S)}: {last_words(self._log)}"
            )
        return Report(**json.loads(line))

    def dismiss(self) -> None:
        with suppress(BrokenPipeError):
            self.questions.close()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.dismiss()
        self.answers.close()


@contextmanager
def _started(specs: Sequence[Spec], folder: Path) -> Iterator[list[_Worker]]:
    addresses = _free_addresses(len(specs))
    with ExitStack() as stack:
        workers = []
        for spec in specs:
            log = folder / f"worker-{spec.rank}.log"
            process = subprocess.Popen(
                [sys.executable, "-m", "rig.training.worker", spec.text()],
                env=_environment(spec, addresses, folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("wb")),
                preexec_fn=die_with_parent,
            )
            workers.append(_Worker(process, log))
            stack.callback(workers[-1].end)
        yield workers
        for worker in workers:
            worker.dismiss()
        with suppress(subprocess.TimeoutExpired):
            for worker in workers:
                worker.process.wait(FAREWELL_S)


def _ask(workers: Sequence[_Worker], calls: int) -> list[Report]:
    """Have all make so many calls, and wait for their answers; a worker that ends is noticed at once."""
    for worker in workers:
        worker.ask(calls)
    reports: dict[int, Report] = {}
    deadline = time.monotonic() + LIMIT_S
    while waiting := [rank for rank in range(len(workers)) if rank not in reports]:
        streams = {workers[rank].answers: rank for rank in waiting}
        ready, _, _ = select.select(list(streams), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise RuntimeError(f"no answer of worker {waiting[0]} for {LIMIT_S:.0f} s")
        reports |= {streams[stream]: workers[streams[stream]].answer() for stream in ready}
    return [reports[rank] for rank in range(len(workers))]


def _longest(reports: Sequence[Report]) -> float:
    return max(report.seconds for report in reports)


def _environment(spec: Spec, addresses: Sequence[str], folder: Path) -> dict[str, str]:
    env = private(folder) | worker_environment(1) | {"PYTHONPATH": python_path()}
    env.pop("TF_CONFIG", None)
    if spec.world > 1 and not spec.connect.get("transport", "").startswith(
        "memory:"
    ):  # which TensorFlow has no part in
        cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": spec.rank}}
        env["TF_CONFIG"] = json.dumps(cluster)
    return env


def python_path() -> str:
    """So that `rig` is found, and whatever this process was told to find."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


def _free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]


def last_words(log: Path) -> str:
    """The last line of a log that says something; what TensorFlow's C++ says of the machine is nothing."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line and not _FROM_CPP.match(line)]
    return lines[-1][:300] if lines else "nothing said"
