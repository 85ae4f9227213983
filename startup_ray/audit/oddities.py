"""Images that differ from the others: blank ones, tiny originals, odd shapes, brightness and contrast far off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from startup_ray.audit.finding import Finding
from startup_ray.audit.survey import Survey
from startup_ray.dataset import Dataset

BLANK, NEARLY_BLANK = 1.0, 6.0
"""Contrast below which an image is so; lossy encoding leaves some in what is one colour."""
EXTREME = 3.0
"""Ratio of the sides."""
FAR = 5.0
"""Robust standard deviations from the median."""


def findings(dataset: Dataset, survey: Survey) -> list[Finding]:
    """One per kind, the farthest off first."""
    height, width, _ = dataset.image_shape  # 0 where each image has its own size: none is enlarged
    is_blank = survey.contrast < BLANK
    is_pale = (survey.contrast < NEARLY_BLANK) & ~is_blank
    is_known = (survey.widths > 0) & (survey.heights > 0)
    area = survey.widths * survey.heights
    long, short = np.maximum(survey.widths, survey.heights), np.minimum(survey.widths, survey.heights)
    ratio = long / np.maximum(short, 1)
    is_tiny = is_known & ((survey.widths < width) | (survey.heights < height))
    bright, sharp = (robust(np.where(is_blank, np.nan, values)) for values in (survey.brightness, survey.contrast))
    found = {
        "damaged": (np.isnan(survey.contrast), np.zeros(len(survey))),
        "blank": (is_blank, survey.contrast),
        "nearly_blank": (is_pale, survey.contrast),
        "tiny": (is_tiny, area),
        "extreme_aspect": (is_known & (ratio > EXTREME), -ratio),
        "odd_brightness": (np.abs(bright) > FAR, -np.abs(bright)),
        "odd_contrast": ((np.abs(sharp) > FAR) & ~is_pale, -np.abs(sharp)),
    }
    return [
        Finding(kind=kind, count=int(is_odd.sum()), of=len(survey), places=_first(is_odd, order))
        for kind, (is_odd, order) in found.items()
    ]


def robust(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances from the median in robust standard deviations, 0 where these are none.

    1.4826 MAD is the standard deviation of what is normal (Rousseeuw and Croux, 1993).
    """
    if not np.isfinite(values).any():
        return np.zeros(len(values))
    centred = values - np.nanmedian(values)
    deviation = 1.4826 * np.nanmedian(np.abs(centred))
    return np.nan_to_num(centred / deviation) if deviation else np.zeros(len(values))


def _first(is_odd: NDArray[np.bool_], order: NDArray[np.float64]) -> tuple[int, ...]:
    places = np.flatnonzero(is_odd)
    return tuple(places[np.argsort(order[places], kind="stable")].tolist())
