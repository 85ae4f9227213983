"""How far an export is from the model that it was made of, and how long it takes.

found = compare(logits_of, [images], expected)
found.relative <= TOLERANCE
latency_ms(logits_of, [images], batch=32)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from startup_ray.export.formats import Call, computes_in_16_bits
from startup_ray.trainers.scoring import BATCH_ROWS

TOLERANCE = 1e-3
"""Largest difference of a number, as a share of the largest that the model gives."""
TOLERANCE_16_BITS = 5e-2
"""The same where the model computes in bfloat16 or float16, and an export in float32: bfloat16 has 8 bits."""

WARM_UP = 3
MIN_CALLS, MAX_CALLS = 15, 200
MEASURED_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Difference:
    absolute: float
    """Largest difference of a number; infinite where the export gives none."""
    relative: float
    """The same as a share of the largest that the model gives."""
    same_classes: bool
    """Whether the largest of each row stands at the same place."""


def tolerance(model: Any) -> float:
    """Largest `relative` difference from this Keras model that is none."""
    return TOLERANCE_16_BITS if computes_in_16_bits(model) else TOLERANCE


def compare(call: Call, inputs: Sequence[np.ndarray], expected: np.ndarray) -> Difference:
    """What an export gives for inputs of N rows each, against what is expected, float32 [N, ...]."""
    starts = range(0, len(inputs[0]), BATCH_ROWS)
    found = np.concatenate([call(*(part[start : start + BATCH_ROWS] for part in inputs)) for start in starts])
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Difference(absolute=float("inf"), relative=float("inf"), same_classes=False)
    absolute = float(np.abs(found - expected).max())
    largest = float(np.abs(expected).max())
    flat = [part.reshape(len(part), -1) for part in (found, expected)]
    same = bool((flat[0].argmax(1) == flat[1].argmax(1)).all())
    return Difference(absolute=absolute, relative=absolute / largest if largest else absolute, same_classes=same)


def latency_ms(
    call: Call, inputs: Sequence[np.ndarray], batch: int, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median milliseconds of one call with `batch` rows, repeated from `inputs` if there are fewer."""
    batches = [np.resize(part, (batch, *part.shape[1:])) for part in inputs]
    for _ in range(WARM_UP):
        call(*batches)
    taken: list[float] = []
    while len(taken) < MIN_CALLS or (len(taken) < MAX_CALLS and sum(taken) < MEASURED_S):
        began = clock()
        call(*batches)
        taken.append(clock() - began)
    return round(median(taken) * 1e3, 4)
