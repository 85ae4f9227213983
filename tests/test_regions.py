"""Laws of boxes: what is none makes a bad row, never an image with one box less."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.ingest_options import ColumnOptions
from startup_ray.items import BadRow, Item, parse_row
from startup_ray.regions import BLURRED, MAX_BOXES, blur_mark, boxes_of, parse_boxes

BOX = [0.1, 0.2, 0.3, 0.4]
COLUMNS = ColumnOptions(blur="faces")


@given(st.lists(st.lists(st.floats() | st.integers(), min_size=3, max_size=5) | st.none() | st.booleans(), max_size=4))
def test_all_boxes_are_taken_or_none(value: list[Any]) -> None:
    """And what is taken covers what each box covers of the image, to a millionth."""
    text, fault = parse_boxes(value)
    assert parse_boxes(json.dumps(value)) == (text, fault)
    assert (text is None) == (not value or fault != "")
    assert parse_boxes(text) == (text, "")
    found = boxes_of(text)
    assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in found)
    for box in value if text else ():
        clipped = [min(max(edge, 0), 1) for edge in box]
        assert any(all(abs(a - b) < 1e-6 for a, b in zip(clipped, one, strict=True)) for one in found)


@pytest.mark.parametrize("value", [None, [], "", "null", "[]"])
def test_nothing_to_blur(value: Any) -> None:
    assert parse_boxes(value) == (None, "")
    assert blur_mark(None) == ""
    assert boxes_of(None) == []


def test_the_same_boxes_are_the_same_text() -> None:
    """In any order, as 32-bit floats, and as far as they lie within the image."""
    single = [0.10000000149011612, 0.20000000298023224, 0.30000001192092896, 0.4000000059604645]
    text, _ = parse_boxes([[-0.5, 0, 7, 1], BOX])
    assert text == "[[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]]"
    assert parse_boxes([single, BOX, [0, -0.0, 1, 1]]) == (text, "")
    assert blur_mark(text).startswith(f"{BLURRED}2 (")
    assert blur_mark(text) != blur_mark(json.dumps([BOX, BOX]))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0.1 0.2 0.3 0.4", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ({"left": 0.1}, "is not a list of boxes"),
        (0, "is not a list of boxes"),
        (False, "is not a list of boxes"),
        (BOX, "has a box that is not four numbers"),
        ([BOX, BOX[:3]], "has a box that is not four numbers"),
        ([BOX, [*BOX, 0.5]], "has a box that is not four numbers"),
        ([BOX, None], "has a box that is not four numbers"),
        ([[0.1, 0.2, "0.3", 0.4]], "has a box that is not four numbers"),
        ([[0.1, 0.2, True, 0.4]], "has a box that is not four numbers"),
        ([[0.1, 0.2, math.nan, 0.4]], "has a box that is not four numbers"),
        ("[[0.1, 0.2, Infinity, 0.4]]", "has a box that is not four numbers"),
        ([[0.3, 0.2, 0.1, 0.4]], "has a box that is empty, or not in the order left, top, right, bottom"),
        ([[0.1, 0.2, 0.3, 0.2]], "has a box that is empty, or not in the order left, top, right, bottom"),
        ([[10, 20, 30, 10**400]], "has a box outside of the image, whose edges are 0 and 1"),
        ([BOX] * (MAX_BOXES + 1), "has more than 1,000 boxes"),
    ],
)
def test_bad_boxes_make_a_bad_row(value: Any, reason: str) -> None:
    row = {"id": "a", "url": "http://e.com/a", "faces": value}
    found = parse_row(row, 0, columns=COLUMNS)
    assert isinstance(found, BadRow)
    assert (found.status, found.reason) == ("bad_item", f"faces {reason}")


def test_a_row_without_the_column_is_a_bad_one() -> None:
    """Its name may be misspelt. Where nobody asks for it, it means nothing."""
    row = {"id": "a", "url": "http://e.com/a", "face": [BOX]}
    found = parse_row(row, 0, columns=COLUMNS)
    assert isinstance(found, BadRow)
    assert found.reason == "faces is missing; null says that nothing is to be blurred"
    plain = parse_row(row | {"blur": "mine"}, 0)
    assert isinstance(plain, Item)
    assert (plain.blur, plain.own) == (None, '{"blur": "mine"}')
    blurred = parse_row(row | {"faces": [BOX]}, 0, columns=COLUMNS)
    assert isinstance(blurred, Item)
    assert (blurred.blur, blurred.own) == (f"[{BOX}]", None)
