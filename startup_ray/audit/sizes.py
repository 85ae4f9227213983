"""Histograms of the originals: sides, shapes and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from startup_ray.audit.survey import Survey

MAX_BARS = 14
_RATIOS = (1 / 3, 1 / 2, 2 / 3, 0.95, 1.05, 3 / 2, 2, 3)
"""Width by height; what differs by less than a twentieth is square to the eye."""
_SHAPES = ("< 1:3", "≥ 1:3", "≥ 1:2", "≥ 2:3", "1:1", "> 1:1", "≥ 3:2", "≥ 2:1", "≥ 3:1")


@dataclass(frozen=True, kw_only=True)
class Histogram:
    title: str
    bars: tuple[tuple[str, int], ...]
    """What each holds, and how many."""

    @property
    def largest(self) -> int:
        return max((number for _, number in self.bars), default=0) or 1


def histograms(survey: Survey, sizes: NDArray[np.int64]) -> list[Histogram]:
    """Of width, height, aspect ratio and bytes; those of which nothing is known are left out."""
    is_known = (survey.widths > 0) & (survey.heights > 0)
    ratios = survey.widths[is_known] / survey.heights[is_known]
    found = [
        by_powers("width in pixels", survey.widths[is_known]),
        by_powers("height in pixels", survey.heights[is_known]),
        by_shape("width to height", ratios),
        by_powers("bytes of a file", sizes[sizes > 0]),
    ]
    return [histogram for histogram in found if histogram.bars]


def by_powers(title: str, values: NDArray[np.int64]) -> Histogram:
    """Positive numbers parted at powers of two, or at the square roots of two between where few of these are needed."""
    if not len(values):
        return Histogram(title=title, bars=())
    low, high = int(values.min()), int(values.max())
    if low == high:
        return Histogram(title=title, bars=((short(low), len(values)),))
    step = 0.5 if np.log2(high / low) < MAX_BARS / 2 - 1 else 1.0
    first, last = np.floor(np.log2(low) / step), np.floor(np.log2(high) / step)
    edges = np.unique(np.ceil(2 ** (step * np.arange(first, last + 2))).astype(np.int64))
    counts = np.histogram(values, edges)[0].tolist()
    return Histogram(title=title, bars=tuple((short(int(edge)), n) for edge, n in zip(edges, counts, strict=False)))


def by_shape(title: str, ratios: NDArray[np.float64]) -> Histogram:
    """Width by height, parted at common shapes."""
    if not len(ratios):
        return Histogram(title=title, bars=())
    counts = np.bincount(np.searchsorted(_RATIOS, ratios, side="right"), minlength=len(_RATIOS) + 1).tolist()
    return Histogram(title=title, bars=tuple(zip(_SHAPES, counts, strict=True)))


def short(number: int) -> str:
    """12345 -> 12k; below a thousand as it is."""
    for factor, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{sign}"
    return str(number)
