"""What a TIFF announces in its first directory, judged before a decoder acts on it.

    flaw(body)                  # "" if it may be opened

libtiff takes memory for a whole tile however small the image is, and Pillow takes time and memory for each strip or
tile that is listed, be there millions of them for ten rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import NamedTuple

MAX_PIECES = 2**17
"""Strips or tiles of an image; each is decoded on its own, in microseconds at best."""
TILE_PIXELS = 4_000_000
"""Of a tile that may be larger than its image."""
MAX_ENTRIES = 2**16
"""Of a directory; a TIFF that is no BigTIFF has no more."""

_SIDES, _TILE_SIDES = (256, 257), (322, 323)
"""Tags of width and length."""
_PIECES = (273, 279, 324, 325)
"""Tags that have a value per strip or tile: where it lies, and its bytes (TIFF 6.0, sections 3 and 15)."""
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 13: "I", 16: "Q", 17: "Q"}
"""Kinds of whole numbers. Negative ones read as very large, which no side of an image is."""


class _Entry(NamedTuple):
    tag: int
    number: int
    """How many values it has."""
    value: int
    """Of one that is a whole number and stands in the entry itself; 0 otherwise."""


def flaw(body: bytes) -> str:
    """Why a TIFF is not to be opened, in words; empty if it may be.

    Of a tag that stands more than once the worst value counts: decoders may differ in which they take.
    """
    try:
        entries = list(islice(_directory(body), MAX_ENTRIES))
    except (struct.error, OverflowError):
        return "its directory is not in the file"
    if any(entry.tag in _PIECES and entry.number > MAX_PIECES for entry in entries):
        return f"more than {MAX_PIECES} strips or tiles"
    values = {tag: [entry.value for entry in entries if entry.tag == tag] or [0] for tag in (*_SIDES, *_TILE_SIDES)}
    image, tile = prod(min(values[tag]) for tag in _SIDES), prod(max(values[tag]) for tag in _TILE_SIDES)
    return f"tiles of {tile} pixels for an image of {image}" if tile > max(TILE_PIXELS, 2 * image) else ""


def _directory(body: bytes) -> Iterator[_Entry]:
    """The entries of the first directory (TIFF 6.0, section 2; BigTIFF has eight bytes where TIFF has four)."""
    order, offset, count, width = ("<" if body[:2] == b"II" else ">"), "I", "H", 4
    if struct.unpack_from(f"{order}H", body, 2) == (43,):
        offset, count, width = "Q", "Q", 8
    (at,) = struct.unpack_from(order + offset, body, width)
    (entries,) = struct.unpack_from(order + count, body, at)
    at += struct.calcsize(count)
    size = 4 + 2 * width
    for place in range(at, at + size * entries, size):
        tag, kind, number = struct.unpack_from(f"{order}HH{offset}", body, place)
        form = _INTEGERS.get(kind)
        is_here = form is not None and number * struct.calcsize(form) <= width
        value = struct.unpack_from(f"{order}{form}", body, place + 4 + width)[0] if is_here and number else 0
        yield _Entry(tag, number, value)
