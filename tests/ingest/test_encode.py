from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from startup_ray.ingest.decode import sniff
from startup_ray.ingest.encode import encode
from startup_ray.job import ImageOptions
from tests.ingest.pictures import options, photo, pixels, psnr

JPEG = ImageOptions(store="jpeg", quality=95)
PNG = ImageOptions(store="png")


def read(encoded: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """As `trainers/cache.py` does."""
    return np.asarray(Image.open(io.BytesIO(encoded)), np.uint8).reshape(shape)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3, 4]), seed=st.integers(0, 99)
)
def test_png_loses_nothing(height: int, width: int, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    encoded = encode(image, PNG)
    assert sniff(encoded) == "PNG"
    assert (read(encoded, image.shape) == image).all()
    assert (pixels(encoded, options((height, width), channels)) == image).all()


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]))
def test_jpeg_keeps_size_and_channels(height: int, width: int, channels: int) -> None:
    image = np.full((height, width, channels), 90, np.uint8)
    encoded = encode(image, JPEG)
    assert sniff(encoded) == "JPEG"
    assert np.abs(read(encoded, image.shape).astype(int) - image).max() <= 2


@pytest.mark.parametrize(("channels", "least_db"), [(1, 41), (3, 33.5)])
def test_jpeg_comes_near(channels: int, least_db: float) -> None:
    image = np.asarray(photo(64, 48).convert("L" if channels == 1 else "RGB"), np.uint8).reshape(48, 64, channels)
    assert psnr(read(encode(image, JPEG), image.shape), image) > least_db


def test_quality_is_heeded() -> None:
    image = np.asarray(photo(64, 48))
    sizes = [len(encode(image, ImageOptions(store="jpeg", quality=quality))) for quality in (1, 50, 95, 100)]
    assert sizes == sorted(set(sizes))


def test_jpeg_of_photographs_is_smaller() -> None:
    image = np.asarray(photo(128, 128))
    assert 2 * len(encode(image, JPEG)) < len(encode(image, PNG))


def test_any_layout_in_memory_will_do() -> None:
    image = np.asarray(photo(32, 32))
    turned = image.transpose(1, 0, 2)
    for form in (PNG, JPEG):
        assert encode(turned, form) == encode(np.ascontiguousarray(turned), form)
