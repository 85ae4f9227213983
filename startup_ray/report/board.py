"""The leaderboard of a sweep: configurations that were trained again, on one scale with what the search had found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from startup_ray.report.sweep_data import Sweep
from startup_ray.report.wording import finite

WIDTH, MARGIN = 150, 6
"""Pixels of the strip on which scores are drawn."""
FAR = 3.0
"""Ranges between the quartiles, beyond the quartiles, that the strip holds."""

Values = dict[str, Any]


def board(found: Sweep) -> list[Values]:
    """Rows, each with its word, and where its scores lie on a strip; empty without confirmation."""
    rows = found.leaderboard
    known = [value for row in rows for value in (*row["scores"], row["found"]) if finite(value) is not None]
    if not known:
        return []
    low, high = _ends(known)
    return [{**row, "word": _word(row, is_first=row is rows[0]), "strip": _strip(row, low, high)} for row in rows]


def _word(row: Values, *, is_first: bool) -> tuple[str, str]:
    if is_first:
        return "first", ""
    if row.get("is_noise") is None:
        return "too few seeds", "open"
    return ("may be chance", "open") if row["is_noise"] else ("clear", "good")


def _strip(row: Values, low: float, high: float) -> Values:
    """Positions in pixels; what lies outside is at the ends, and an interval is cut there."""
    ends: Sequence[float] | None = row.get("interval")
    return {
        "seeds": [
            (_at(value, low, high), low <= value <= high) for value in row["scores"] if finite(value) is not None
        ],
        "found": None if finite(row["found"]) is None else _at(row["found"], low, high),
        "mean": _at(row["mean"], low, high) if low <= row["mean"] <= high else None,
        "ends": [_at(end, low, high) for end in ends] if ends else None,
    }


def _ends(known: Sequence[float]) -> tuple[float, float]:
    """Of the strip: one training that went wrong must not press all others together."""
    if len(known) < 4:
        return min(known), max(known)
    first, _, last = statistics.quantiles(known, n=4)
    far = FAR * (last - first)
    return max(min(known), first - far), min(max(known), last + far)


def _at(value: float, low: float, high: float) -> float:
    part = (min(max(value, low), high) - low) / ((high - low) or 1)
    return round(MARGIN + (WIDTH - 2 * MARGIN) * part, 1)
