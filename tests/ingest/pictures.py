"""Pictures for the tests of decoding and encoding, and what they are measured with."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from startup_ray.ingest.decode import decode
from startup_ray.job import ImageOptions


def options(
    size: tuple[int, int] = (8, 8), channels: int = 3, resize: str = "center_crop", store: str = "png"
) -> ImageOptions:
    return ImageOptions.model_validate({"size": size, "channels": channels, "resize": resize, "store": store})


def save(image: Image.Image, kind: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


@cache
def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """RGB with a photograph's spectrum: noise at every scale, the more the coarser, brightness above colour."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128.0)
    for cells in (2**octave for octave in range(1, max(width, height).bit_length())):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        layer = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
        total += (0.3 * layer + 0.7 * layer.mean(2, keepdims=True) - 128) * 1.4 / cells**0.5
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def pixels(body: bytes, opts: ImageOptions | None = None) -> np.ndarray:
    """What an acceptable body of at most a million pixels is decoded to."""
    decoded = decode(body, opts or options(), 1_000_000)
    assert decoded.status == "ok", decoded.reason
    assert decoded.pixels is not None
    assert decoded.pixels.dtype == np.uint8
    return decoded.pixels


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = np.mean((image.astype(float) - reference) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def area_average(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float [height, width, channels]: the exact mean over each target pixel's part of the centre crop."""
    height, width = image.shape[:2]
    ratio = min(height / size[0], width / size[1])
    rows, columns = (_shares(n, t, ratio) for n, t in zip((height, width), size, strict=True))
    averaged: np.ndarray = np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), columns, optimize=True)
    return averaged


def _shares(pixels: int, target: int, ratio: float) -> np.ndarray:
    """float [target, pixels]: how much of each target pixel each pixel covers; rows sum to 1."""
    edges = (pixels - target * ratio) / 2 + ratio * np.arange(target + 1)[:, None]
    at = np.arange(pixels)[None, :]
    covered = np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at)
    shares: np.ndarray = covered.clip(0) / ratio
    return shares
