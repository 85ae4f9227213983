"""TIFFs of many kinds, and such as are made to do harm."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from startup_ray.ingest.decode import decode, sniff
from startup_ray.ingest.tiff import MAX_PIECES, flaw
from tests.ingest.pictures import options, photo, pixels, save

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
    279,
)
PLANAR, COLORS, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT = (
    284,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
)
SHORT, LONG, LONG8 = 3, 4, 16
FORMS = {SHORT: "H", LONG: "I", LONG8: "Q"}
DATA = 16
"""Where the data begins, in TIFF and BigTIFF alike."""

Tags = Mapping[int, Any]


def tiff(tags: Tags, data: bytes, *, order: str = "<", is_big: bool = False) -> bytes:
    """Data at DATA, then a directory of whole numbers: each value one, a sequence, or (kind, sequence)."""
    mark, offset, count, width = (b"II" if order == "<" else b"MM"), "I", "H", 4
    if is_big:
        offset, count, width = "Q", "Q", 8
    at = DATA + len(data)
    version = struct.pack(f"{order}HHHQ", 43, 8, 0, at) if is_big else struct.pack(f"{order}HIQ", 42, at, 0)
    entries, long, beyond = b"", b"", at + struct.calcsize(count) + len(tags) * (4 + 2 * width) + width
    for tag, given_ in sorted(tags.items()):
        kind, values = given_ if isinstance(given_, tuple) else (LONG, given_)
        values = values if isinstance(values, Sequence) else [values]
        packed = struct.pack(f"{order}{len(values)}{FORMS[kind]}", *values)
        if len(packed) > width:
            packed, long = struct.pack(order + offset, beyond + len(long)), long + packed
        entries += struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + packed.ljust(width, b"\0")
    head = (mark + version).ljust(DATA, b"\0") + data
    return head + struct.pack(order + count, len(tags)) + entries + bytes(width) + long


GREY: dict[int, Any] = {
    WIDTH: 10,
    LENGTH: 10,
    BITS: 8,
    COMPRESSION: 1,
    PHOTOMETRIC: 1,
    SAMPLES: 1,
    ROWS: 10,
    OFFSETS: DATA,
    COUNTS: 100,
}
RAMP = np.arange(100, dtype=np.uint8).reshape(10, 10)


def grey(**changed: Any) -> bytes:
    """A grey ramp with other tags, by their names above."""
    return tiff({**GREY, **{globals()[name]: value for name, value in changed.items()}}, RAMP.tobytes())


def as_it_is(body: bytes, channels: int = 1) -> np.ndarray:
    return pixels(body, options(channels=channels, resize="no"))


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
def test_both_orders_and_bigtiff(order: str, is_big: bool) -> None:
    body = tiff(GREY, RAMP.tobytes(), order=order, is_big=is_big)
    assert sniff(body) == "TIFF"
    assert (as_it_is(body)[..., 0] == RAMP).all()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_and_compressions(mode: str, compression: str | None) -> None:
    image = photo(24, 20).convert(mode)
    expected = image.convert("RGB") if mode not in ("LA", "RGBA") else photo(24, 20).convert(mode[:-1]).convert("RGB")
    body = save(image, "TIFF", **({"compression": compression} if compression else {}))
    assert (as_it_is(body, 3) == np.asarray(expected)).all()


def test_jpeg_in_a_tiff() -> None:
    found = as_it_is(save(photo(24, 20), "TIFF", compression="jpeg", quality=95), 3)
    assert np.abs(found.astype(int) - np.asarray(photo(24, 20))).mean() < 8


def test_planes_and_strips() -> None:
    image = np.asarray(photo(10, 10))
    at = [DATA + 100 * plane + 50 * strip for plane in range(3) for strip in range(2)]
    colour = {**GREY, BITS: [8] * 3, PHOTOMETRIC: 2, SAMPLES: 3, PLANAR: 2, ROWS: 5, OFFSETS: at, COUNTS: [50] * 6}
    assert (as_it_is(tiff(colour, image.transpose(2, 0, 1).tobytes()), 3) == image).all()


def test_tiles() -> None:
    image = np.asarray(photo(30, 20).convert("L"))
    padded = np.zeros((32, 32), np.uint8)
    padded[:20, :30] = image
    tiles = [zlib.compress(padded[y : y + 16, x : x + 16].tobytes()) for y in (0, 16) for x in (0, 16)]
    at = [DATA + sum(map(len, tiles[:i])) for i in range(4)]
    tags = {tag: value for tag, value in GREY.items() if tag not in (ROWS, OFFSETS, COUNTS)}
    tags |= {WIDTH: 30, LENGTH: 20, COMPRESSION: 8, TILE_WIDTH: 16, TILE_LENGTH: 16, TILE_OFFSETS: at}
    body = tiff({**tags, TILE_COUNTS: [len(tile) for tile in tiles]}, b"".join(tiles))
    assert (as_it_is(body)[..., 0] == image).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_become_8(order: str) -> None:
    wide = (RAMP.astype(np.uint16) * 257 + 3).astype(f"{order}u2")
    body = tiff({**GREY, BITS: 16, COUNTS: 200}, wide.tobytes(), order=order)
    assert (as_it_is(body)[..., 0] == RAMP).all()
    colour = np.stack([wide, wide[::-1], wide.T], 2).astype(wide.dtype)
    tags = {**GREY, BITS: [16] * 3, PHOTOMETRIC: 2, SAMPLES: 3, COUNTS: 600}
    assert (as_it_is(tiff(tags, colour.tobytes(), order=order), 3) == np.stack([RAMP, RAMP[::-1], RAMP.T], 2)).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_without_a_range_are_not_read(dtype: Any) -> None:
    decoded = decode(save(Image.fromarray(RAMP.astype(dtype)), "TIFF"), options(), 10_000)
    assert (decoded.status, decoded.reason[:8]) == ("not_image", "TIFF of ")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "tag",
    [
        struct.pack("<HHII", 270, 2, 5_000, 4_000_000_000),  # a description that is not there
        struct.pack("<HHII", 270, 2, 4_000_000_000, DATA),
        struct.pack("<HHII", 34_665, 4, 1, 4_000_000_000),  # an Exif directory that is not there
    ],
)
def test_broken_tags_are_left_out(tag: bytes) -> None:
    body = tiff({**GREY, 270: 0}, RAMP.tobytes())
    at = body.index(struct.pack("<HHI", 270, LONG, 1))
    assert (as_it_is(body[:at] + tag + body[at + 12 :])[..., 0] == RAMP).all()


@pytest.mark.parametrize(
    "body",
    [
        grey(OFFSETS=4_000_000_000),
        grey(COMPRESSION=8, COUNTS=4_000_000_000),
        grey(COMPRESSION=8, ROWS=4_000_000_000),
        grey(COMPRESSION=5),
        grey(COMPRESSION=7),
        grey(SAMPLES=60_000),
        b"II*\0",
        b"MM\0*" + b"\xff" * 40,
        b"II+\0\x08\0\0\0" + b"\xff" * 40,
        tiff(GREY, RAMP.tobytes())[:-80],
    ],
)
def test_what_cannot_be_decoded_is_corrupt(body: bytes) -> None:
    decoded = decode(body, options(), 10_000)
    assert decoded.status == "corrupt"
    assert decoded.reason
    assert "0x" not in decoded.reason  # nothing of this process's memory


def test_a_deflate_bomb_is_decoded_no_further_than_its_image() -> None:
    bomb = zlib.compress(bytes(60_000_000))
    body = tiff({**GREY, COMPRESSION: 8, COUNTS: len(bomb)}, bomb)
    tracemalloc.start()
    try:
        assert (as_it_is(body) == 0).all()
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_pixels_are_limited_by_the_header() -> None:
    assert decode(grey(WIDTH=60_000, LENGTH=60_000), options(), 50_000_000).status == "too_many_pixels"


@pytest.mark.parametrize("kind", [SHORT, LONG, LONG8])
def test_tiles_far_larger_than_their_image_are_refused(kind: int) -> None:
    """libtiff takes memory for one, here half a gigabyte and more, before it looks for its data."""
    tags = {**GREY, COMPRESSION: 8, TILE_WIDTH: (kind, [32_768]), TILE_LENGTH: (kind, [32_768]), TILE_OFFSETS: DATA}
    body = tiff({**tags, TILE_COUNTS: 100}, RAMP.tobytes(), is_big=kind == LONG8)
    assert "tiles of 1073741824 pixels" in flaw(body)
    assert decode(body, options(), 50_000_000).status == "corrupt"


@pytest.mark.parametrize("tag", ["OFFSETS", "COUNTS", "TILE_OFFSETS", "TILE_COUNTS"])
def test_millions_of_strips_or_tiles_are_refused(tag: str) -> None:
    assert "strips or tiles" in flaw(grey(**{tag: [DATA] * (MAX_PIECES + 1)}))
    assert not flaw(grey(**{tag: [DATA] * MAX_PIECES}))


def test_of_a_tag_that_stands_twice_the_worst_counts() -> None:
    body = tiff({**GREY, TILE_WIDTH: 16, TILE_LENGTH: 16, 330: 99_999, 331: 99_999}, RAMP.tobytes())
    for tag, twin in ((330, TILE_WIDTH), (331, TILE_LENGTH)):
        body = body.replace(struct.pack("<HH", tag, LONG), struct.pack("<HH", twin, LONG))
    assert flaw(body)


@settings(max_examples=300, deadline=None)
@given(
    body=st.sampled_from([grey(), tiff(GREY, RAMP.tobytes(), is_big=True), save(photo(24, 20), "TIFF")]), data=st.data()
)
def test_damaged_directories_end_in_a_known_state(body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(4, len(damaged) - 4))
        damaged[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    decoded = decode(bytes(damaged), options(), 10_000)
    assert decoded.status in {"ok", "corrupt", "too_many_pixels", "too_small", "not_image"}
    assert (decoded.pixels is not None) == (decoded.status == "ok")
