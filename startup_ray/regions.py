"""Regions of an image that are to be blurred before it is stored: the boxes of a manifest's row.

    text, fault = parse_boxes([[0.1, 0.2, 0.3, 0.5]])     # '[[0.1, 0.2, 0.3, 0.5]]', ''
    boxes_of(text)                                        # [(0.1, 0.2, 0.3, 0.5)]
    blur_mark(text)                                       # 'blurred regions: 1 (5f3a...)', for the ledger

Law: what is no box is a fault, and never one box less, or an image would be stored with what was to be hidden.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

MAX_BOXES = 1_000
"""Of one image."""
BLURRED = "blurred regions: "
"""Begins the reason of an `ok` item some of whose regions were blurred; what follows tells these boxes from others."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of the upright image's width and height, in [0, 1]."""

_DIGITS = 6
"""Of a share: a box is the same as 32-bit and as 64-bit floats, to a fraction of a pixel."""


def parse_boxes(value: Any) -> tuple[str | None, str]:
    """Value of a column -> canonical JSON of its boxes, None without any; and what is wrong with it.

    Args:
        value: a list of [left, top, right, bottom], the same as JSON text, or None.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except (ValueError, RecursionError):
            return None, "is not JSON"
    if value is None or value == []:
        return None, ""
    if not isinstance(value, list):
        return None, "is not a list of boxes"
    if len(value) > MAX_BOXES:
        return None, f"has more than {MAX_BOXES:,} boxes"
    boxes = set()
    for values in value:
        box, fault = _parse_box(values)
        if fault:
            return None, fault
        boxes.add(box)
    return json.dumps(sorted(boxes)), ""


def boxes_of(text: str | None) -> list[Box]:
    """The boxes in what `parse_boxes` gave."""
    return [(left, top, right, bottom) for left, top, right, bottom in json.loads(text or "[]")]


def blur_mark(text: str | None) -> str:
    """What the ledger says of an image whose boxes were blurred; empty without boxes."""
    if text is None:
        return ""
    return f"{BLURRED}{len(boxes_of(text))} ({hashlib.sha256(text.encode()).hexdigest()[:16]})"


def _parse_box(values: Any) -> tuple[Box, str]:
    """A box clipped to the image, and what is wrong with it."""
    nothing = (0.0, 0.0, 0.0, 0.0)
    if not isinstance(values, list) or len(values) != 4 or not all(map(_is_number, values)):
        return nothing, "has a box that is not four numbers"
    left, top, right, bottom = values
    if left >= right or top >= bottom:
        return nothing, "has a box that is empty, or not in the order left, top, right, bottom"
    left, top, right, bottom = (round(min(max(edge, 0.0), 1.0), _DIGITS) + 0.0 for edge in values)
    if left >= right or top >= bottom:  # most often pixels instead of shares
        return nothing, "has a box outside of the image, whose edges are 0 and 1"
    return (left, top, right, bottom), ""


def _is_number(value: Any) -> bool:
    """Whether it is a finite one; a whole number may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
