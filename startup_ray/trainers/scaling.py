"""Where a step's time goes, and what to do when too much of it is not computing.

seconds = all_reduce_s(sync, program.messages())
print(advise(Step(workers=2, global_batch=64, total_s=0.03, input_s=0.0, all_reduce_s=seconds)))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

REPEATS = 7
GOOD_SHARE = 0.25
"""Of a step, for all that is not computing: above it there is something to be won."""
MAX_BATCH = 4096
"""A larger global batch is no advice: few models learn as well with it (Shallue et al., arXiv:1811.03600)."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Mean of the steps of an epoch."""

    workers: int
    global_batch: int
    total_s: float
    input_s: float
    """Waiting for rows."""
    all_reduce_s: float
    """The messages of a step alone, with no worker late."""

    @property
    def compute_s(self) -> float:
        """The rest: forward, backward, update, and waiting for slower workers."""
        return max(self.total_s - self.input_s - self.all_reduce_s, 0.0)


def all_reduce_s(sync: Any, messages: Sequence[int], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds that the messages of one step take; called by all workers together.

    Args:
        messages: float32 numbers in each.
    """
    if sync.world == 1:
        return 0.0
    import tensorflow as tf

    vectors = [tf.zeros([size], tf.float32) for size in messages]

    def send() -> Any:
        return [sync.sum(vector) for vector in vectors]

    together = tf.function(send, autograph=False)
    together()
    taken = []
    for _ in range(REPEATS):
        began = clock()
        together()
        taken.append(clock() - began)
    return median(taken)


def advise(step: Step) -> str:
    """One line: where the time goes, and what to do if too little of it is computing."""
    total = max(step.total_s, 1e-9)
    parts = {"input": step.input_s, "compute": step.compute_s, "all-reduce": step.all_reduce_s}
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts.items())
    workers = "1 worker" if step.workers == 1 else f"{step.workers} workers"
    speed = f"{workers}: {step.global_batch / total:,.0f} images/s; a step takes {total * 1000:.1f} ms: {shares}"
    tips = [tip for tip in (_tip_on_all_reduce(step), _tip_on_input(step)) if tip]
    return "; ".join([speed, *tips])


def _tip_on_all_reduce(step: Step) -> str:
    share = step.all_reduce_s / max(step.total_s, 1e-9)
    if share <= GOOD_SHARE:
        return ""
    head = f"all-reduce takes {share:.0%} of a step"
    alone_s = step.compute_s * step.workers + step.input_s
    ways = []
    batch = _batch_for(step)
    if batch <= MAX_BATCH:
        ways.append(f"raise training.global_batch to at least {batch}")
    if alone_s <= step.total_s:
        ways.append("use 1 worker, which would be as fast or faster")
    elif not ways:
        ways.append("use fewer workers with more threads_per_worker each")
    return f"{head}: {', or '.join(ways)}"


def _batch_for(step: Step) -> int:
    """The smallest doubling of the global batch at which all-reduce takes no more than GOOD_SHARE.

    Computing grows with the batch, the messages do not.
    """
    batch, compute_s = step.global_batch, max(step.compute_s, 1e-9)
    while batch <= MAX_BATCH and step.all_reduce_s > GOOD_SHARE * (step.all_reduce_s + compute_s):
        batch, compute_s = 2 * batch, 2 * compute_s
    return batch


def _tip_on_input(step: Step) -> str:
    share = step.input_s / max(step.total_s, 1e-9)
    if share <= GOOD_SHARE:
        return ""
    return f"waiting for images takes {share:.0%} of a step: put STARTUP_RAY_CACHE on a faster disk, or add memory"
