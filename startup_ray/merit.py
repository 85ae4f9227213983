"""Which metrics are better when they are lower, and which of two epochs is the better one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

LOWER_IS_BETTER = ("loss", "log_loss", "brier", "ece", "fid", "kid", "copies", "d_loss", "g_loss", "penalty")
"""Names of metrics, after `val/` or `train/`."""


def is_lower_better(metric: str) -> bool:
    """`val/loss` -> True."""
    return metric.rpartition("/")[2] in LOWER_IS_BETTER


def is_better(line: Mapping[str, Any], best: Mapping[str, Any], monitor: str) -> bool:
    """Whether an epoch's metrics are better than the best so far; never where nothing was judged, or NaN came of it.

    Of equals the lower val/loss wins, then the earlier: on a small split many epochs count the same hits.
    """
    if monitor not in line or math.isnan(line[monitor]):
        return False
    return not best or _merit(line, monitor) > _merit(best, monitor)


def kept(lines: Iterable[Mapping[str, Any]], monitor: str, metric: str) -> tuple[tuple[int, float], ...]:
    """After each epoch, the metric of the model that would be kept: that of the best epoch so far, as `monitor` says.

    Epochs before the first with both are left out.
    """
    best: Mapping[str, Any] = {}
    curve = []
    for line in lines:
        if is_better(line, best, monitor):
            best = line
        if metric in best:
            curve.append((int(line["epoch"]), float(best[metric])))
    return tuple(curve)


def _merit(line: Mapping[str, Any], monitor: str) -> tuple[float, float]:
    sign = -1 if is_lower_better(monitor) else 1
    return sign * line[monitor], -line.get("val/loss", 0.0)
