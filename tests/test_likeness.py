from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from startup_ray.likeness import MAX_DISTANCE, Sketchbook, _near, hashes, small


def scene(seed: int, side: int = 96) -> Image.Image:
    """A smooth picture of its own for each seed, as photographs are smooth."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3), np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def brighter(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) * 0.8 + 30).astype(np.uint8))


def firsts(*images: Image.Image) -> list[int]:
    with Sketchbook() as book:
        for image in images:
            book.add(small(image)[None])
        found: list[int] = book.firsts().tolist()
    return found


def test_copies_follow_the_first_and_others_stand_alone() -> None:
    one, other = scene(1), scene(2)
    copies = [as_jpeg(one, 40), one.resize((40, 40)), brighter(one), one.resize((300, 200)), one.convert("L")]
    assert firsts(one, other, *copies) == [0, 1, 0, 0, 0, 0, 0]


def test_different_pictures_are_not_alike() -> None:
    assert firsts(*map(scene, range(100))) == list(range(100))


def test_what_is_nearly_flat_is_compared_with_nothing() -> None:
    flat = Image.new("RGB", (32, 32), "navy")
    faint = Image.fromarray(np.random.default_rng(0).integers(100, 104, (32, 32), np.uint8))
    assert firsts(flat, flat, faint, faint) == [0, 1, 2, 3]


def test_what_is_transparent_is_white_whatever_lies_under_it() -> None:
    shape = np.asarray(scene(3).convert("L"))
    layers = [np.dstack([np.full((*shape.shape, 3), under, np.uint8), 255 - shape]) for under in (0, 40)]
    one, other = (small(Image.fromarray(layer)) for layer in layers)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99
    assert np.abs(one.astype(int) - small(Image.fromarray(shape))).max() < 3


def test_no_images() -> None:
    with Sketchbook() as book:
        book.add(np.zeros((0, 32, 32), np.uint8))
        assert book.firsts().tolist() == []


def test_neither_brightness_nor_contrast_changes_a_hash() -> None:
    image = small(scene(4)).astype(float)
    assert hashes((image * 0.5 + 60).round().astype(np.uint8)[None]) == hashes(
        (image / 2).round().astype(np.uint8)[None]
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
def test_pairs_are_those_of_the_slow_and_obvious_way(seed: int, size: int, is_crowded: bool) -> None:
    random = np.random.default_rng(seed)
    found = random.integers(0, 2**63, size, np.uint64)
    for i in range(1, size):  # some near others, at every distance about the limit
        if is_crowded or i % 2:
            flips = random.choice(64, random.integers(0, MAX_DISTANCE + 3), replace=False)
            found[i] = found[i - 1] ^ np.bitwise_or.reduce(
                np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
            )
    near = {tuple(pair) for block in _near(found) for pair in block.tolist()}
    wanted = {
        (i, j) for j in range(size) for i in range(j) if (int(found[i]) ^ int(found[j])).bit_count() <= MAX_DISTANCE
    }
    assert near == wanted


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=20), st.integers(0, 20))
def test_what_comes_later_changes_nothing_before(kinds: list[tuple[int, int]], at: int) -> None:
    """And every member follows an image that leads itself, at or before its own place."""
    images = [Image.blend(scene(kind), scene(kind + 50), shift / 20) for kind, shift in kinds]
    whole = firsts(*images)
    assert whole[:at] == firsts(*images[:at])
    assert all(whole[lead] == lead <= i for i, lead in enumerate(whole))


@pytest.mark.parametrize("copies", [2_000])
def test_many_copies_of_one_picture_take_no_time_of_their_square(copies: int) -> None:
    with Sketchbook() as book:
        book.add(np.repeat(small(scene(5))[None], copies, axis=0))
        assert not book.firsts().any()
