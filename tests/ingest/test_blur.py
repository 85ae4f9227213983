"""Laws of blurring: nothing is left of what lies in a box, and nothing changes far from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from startup_ray.ingest.blur import SHARE, blur, turned_back
from startup_ray.ingest.decode import _TURNS, decode
from startup_ray.job import ImageOptions
from startup_ray.regions import MAX_BOXES, Box
from tests.ingest.pictures import options, photo, save

BOX: Box = (0.25, 0.125, 0.5, 0.5)
LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True, "exact": True}}


def squares(width: int, height: int, channels: int = 3) -> Image.Image:
    """Black and white squares of four pixels."""
    rows, columns = np.indices((height, width)) // 4
    plane = ((rows + columns) % 2 * 255).astype(np.uint8)
    return Image.fromarray(plane if channels == 1 else np.stack([plane] * channels, axis=2))


def pixels(body: bytes, opts: ImageOptions, boxes: Sequence[Box] = ()) -> NDArray[np.int32]:
    decoded = decode(body, opts, 10_000_000, boxes)
    assert decoded.pixels is not None
    return decoded.pixels.astype(np.int32)


def inner(image: NDArray[np.int32], box: Box, around: float = 0.0) -> NDArray[np.bool_]:
    """Where a box lies, and a share of its diagonal around it."""
    height, width = image.shape[:2]
    left, top, right, bottom = (edge * side for edge, side in zip(box, (width, height) * 2, strict=True))
    more = around * np.hypot(right - left, bottom - top)
    rows, columns = np.indices((height, width)) + 0.5
    is_in = (rows > top - more) & (rows < bottom + more) & (columns > left - more) & (columns < right + more)
    return np.asarray(is_in)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_box_becomes_even_and_the_rest_stays_bit_for_bit(kind: str, channels: int) -> None:
    body = save(squares(128, 96, 3 if kind == "JPEG" else channels), kind, **LOSSLESS.get(kind, {}))
    opts = options(channels=channels, resize="no")
    plain, blurred = pixels(body, opts), pixels(body, opts, [BOX])
    is_in, is_near = inner(plain, BOX), inner(plain, BOX, 2.1 * SHARE)
    assert plain[is_in].std(axis=0).max() > 100
    assert blurred[is_in].std(axis=0).max() < 5
    assert (blurred[~is_near] == plain[~is_near]).all()
    assert (blurred[is_near] != plain[is_near]).any(axis=1).mean() > 0.8


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_that_is_shrunk_while_it_is_decoded(shrink: int) -> None:
    """Sides that are no multiple of the factor: the last pixels are parts of one."""
    width, height = 64 * shrink - 3, 48 * shrink - 5
    body = save(photo(width, height), "JPEG", quality=95)
    opts = options((24, 32))
    plain, blurred = pixels(body, opts), pixels(body, opts, [BOX])
    reference = photo(width, height).copy()
    blur(reference, [BOX], reference.size)
    expected = pixels(save(reference, "PNG"), opts)
    is_near = inner(plain, BOX, 2.1 * SHARE + 0.1)
    assert np.abs(blurred - expected).mean() < 2
    assert np.abs(blurred - expected)[inner(plain, BOX)].max() < 6
    assert np.abs(plain - expected)[inner(plain, BOX)].max() > 20
    assert (blurred[~is_near] == plain[~is_near]).all()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_boxes_are_those_of_the_upright_image(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = squares(96, 128)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(turn, _TURNS.get(turn))
    stored = upright if back is None else upright.transpose(back)
    image = pixels(save(stored, kind, exif=exif), options(resize="no"), [BOX])
    assert image.shape == (128, 96, 3)
    is_in, is_near = inner(image, BOX), inner(image, BOX, 2.1 * SHARE)
    assert image[is_in].std() < 5
    assert np.abs(image - np.asarray(upright).astype(int))[~is_near].max() < 60  # JPEG's own


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_box_that_is_turned_back_lies_where_its_pixels_do(turn: int) -> None:
    stored = Image.new("L", (8, 16) if turn > 4 else (16, 8))
    left, top, right, bottom = turned_back([BOX], turn)[0]
    width, height = stored.size
    stored.paste(255, (round(left * width), round(top * height), round(right * width), round(bottom * height)))
    upright = np.asarray(stored.transpose(_TURNS[turn]) if turn > 1 else stored)
    expected = np.zeros((8, 16), np.uint8)
    expected[1:4, 4:8] = 255
    assert (upright == expected).all()


def test_a_small_box_beside_a_large_one_is_covered_whole() -> None:
    """Where the edge of the mask is as soft as the largest box has it, a small face stays."""
    small: Box = (0.9, 0.9, 0.92, 0.93)
    image = squares(400, 400)
    blur(image, [(0.0, 0.0, 0.5, 0.5), small], image.size)
    found = np.asarray(image).astype(np.int32)
    assert found[inner(found, small)].std() < 5
    assert found[inner(found, (0.6, 0.6, 0.8, 0.8))].std() > 120


def test_unseen_colours_do_not_come_to_light() -> None:
    """What is transparent counts for nothing: here red behind the left half of a box."""
    planes = np.zeros((40, 40, 4), np.uint8)
    planes[:, :20] = (255, 0, 0, 0)
    planes[:, 20:] = (0, 0, 255, 255)
    image = pixels(save(Image.fromarray(planes), "PNG"), options(channels=4, resize="no"), [(0.25, 0.25, 0.75, 0.75)])
    seen = image[inner(image, (0.25, 0.25, 0.75, 0.75))]
    assert seen[:, 0].max() == 0
    assert len(np.unique(seen[:, 3])) > 10


@settings(max_examples=50)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.lists(st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 1000)] * 2), min_size=1, max_size=5),
)
def test_boxes_and_images_of_any_size(size: tuple[int, int], corners: list[tuple[int, ...]]) -> None:
    boxes = [(x / 1000, y / 1000, min(x + w, 1000) / 1000, min(y + h, 1000) / 1000) for x, y, w, h in corners]
    image = Image.new("RGB", size, (10, 200, 30))
    blur(image, boxes, size)
    assert image.size == size
    assert np.abs(np.asarray(image).astype(int) - (10, 200, 30)).max() <= 1


def test_as_many_boxes_as_a_row_may_have() -> None:
    body = save(squares(256, 256), "PNG")
    many = [(i / 10_000, 0.0, 1.0, 1.0) for i in range(MAX_BOXES)]
    image = pixels(body, options(resize="no"), many)
    assert image.std() < 5
