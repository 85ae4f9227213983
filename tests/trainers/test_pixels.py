"""Pixels are those of Pillow's reader, whatever way they come."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from startup_ray.ingest.encode import encode
from startup_ray.job import ImageOptions
from startup_ray.trainers.pixels import Decoder


def picture(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Half smooth and half noise, so that an encoder uses all of its filters."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + np.arange(channels) * 40
    noise = rng.integers(0, 256, shape)
    return np.where(np.arange(width)[None, :, None] < width // 2, ramp % 256, noise).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)), np.uint8).reshape(shape)


def decoded(encoded: bytes, shape: tuple[int, int, int], store: str = "png") -> np.ndarray:
    target = np.empty(shape, np.uint8)
    Decoder(shape, options_of(shape, store)).into(target, encoded)
    return target


def options_of(shape: tuple[int, int, int], store: str = "png") -> ImageOptions:
    return ImageOptions.model_validate({"size": shape[:2], "channels": shape[2], "store": store})


SMALL_AND_LARGE = [(28, 28, 1), (7, 31, 1), (64, 48, 3), (1, 1, 3), (300, 300, 3)]


@pytest.mark.parametrize(
    ("store", "shape"),
    [("png", (64, 48, 4)), *((store, shape) for store in ("png", "jpeg") for shape in SMALL_AND_LARGE)],
)
def test_what_ingest_stores(store: str, shape: tuple[int, int, int]) -> None:
    for seed in range(5):
        encoded = encode(picture(shape, seed), options_of(shape, store))
        np.testing.assert_array_equal(decoded(encoded, shape), by_pillow(encoded, shape))
        if store == "png":
            np.testing.assert_array_equal(decoded(encoded, shape), picture(shape, seed))


SHAPE = (20, 20, 3)
COLOUR = Image.fromarray(picture(SHAPE))


@pytest.mark.parametrize(
    "encoded",
    [
        saved(COLOUR, "PNG", dpi=(72, 72)),  # a chunk between header and pixels
        saved(COLOUR, "PNG", compress_level=0),
        saved(COLOUR, "JPEG", progressive=True),
        saved(COLOUR, "JPEG", subsampling=0),
        saved(COLOUR, "BMP"),
        saved(COLOUR, "WEBP"),
    ],
)
def test_what_others_may_have_stored(encoded: bytes) -> None:
    np.testing.assert_array_equal(decoded(encoded, SHAPE), by_pillow(encoded, SHAPE))


PNG = encode(picture(SHAPE), ImageOptions(size=SHAPE[:2], channels=3))
JPEG = encode(picture(SHAPE), ImageOptions(size=SHAPE[:2], channels=3, store="jpeg"))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"no image",
        PNG[:-60],
        PNG[: len(PNG) // 2],
        PNG[:60] + bytes(40) + PNG[100:],
        JPEG[: len(JPEG) // 2],
        encode(picture((20, 21, 3)), ImageOptions(size=(20, 21), channels=3)),
        encode(picture((20, 20, 1)), ImageOptions(size=(20, 20), channels=1)),
        encode(picture((20, 20, 1)), ImageOptions(size=(20, 20), channels=1, store="jpeg")),
    ],
)
def test_no_image_or_one_of_another_shape_is_an_error(encoded: bytes) -> None:
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decoded(encoded, SHAPE)


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 31, 3), (8, 8, 4)])
def test_raw_pixels(shape: tuple[int, int, int]) -> None:
    encoded = encode(picture(shape), options_of(shape, "raw"))
    np.testing.assert_array_equal(decoded(encoded, shape, "raw"), picture(shape))
    for damaged in (b"", encoded[:1], encoded[:-1], encoded + b"0"):
        with pytest.raises(ValueError, match="reshape"):
            decoded(damaged, shape, "raw")


@pytest.mark.parametrize("body", [b"", b"no image", PNG[:-60], JPEG[: len(JPEG) // 2]])
def test_a_damaged_original_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not_image|corrupt"):
        decoded(body, SHAPE, "original")


def test_after_a_bad_image_the_next_is_right() -> None:
    decoder, target = Decoder(SHAPE), np.empty(SHAPE, np.uint8)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decoder.into(target, PNG[: len(PNG) // 2])
    decoder.into(target, PNG)
    np.testing.assert_array_equal(target, picture(SHAPE))
