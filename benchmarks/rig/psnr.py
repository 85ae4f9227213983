"""How true the small images are: PSNR against a full decode with exact area resampling of the centre crop."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rig.case import QUALITY

Floats = NDArray[np.float64]


def mean_psnr(stored: Sequence[bytes], originals: Sequence[bytes]) -> float:
    """Mean over the images, in dB; stored and original images in the same order."""
    sizes = [Image.open(io.BytesIO(body)).height for body in stored]
    pairs = zip(stored, originals, sizes, strict=True)
    return float(np.mean([_psnr(_pixels(small), reference(original, size)) for small, original, size in pairs]))


def ceiling(originals: Sequence[bytes], size: int) -> float:
    """What the reference itself reaches once it is stored as JPEG."""
    return mean_psnr([_stored(reference(original, size)) for original in originals], originals)


def reference(original: bytes, size: int) -> Floats:
    """JPEG -> float [size, size, 3] in [0, 255]; every pixel the mean of the area that it covers."""
    pixels = _pixels(original)
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    weights = _area_weights(side, size)
    shrunk: Floats = np.einsum("yi,xj,ijc->yxc", weights, weights, square, optimize=True)
    return shrunk


def _area_weights(side: int, size: int) -> Floats:
    """[size, side]: the share of each old pixel in each new one; rows add up to 1."""
    edges = np.arange(size + 1) * (side / size)
    begins, ends = edges[:-1, None], edges[1:, None]
    old = np.arange(side)
    overlap = np.minimum(ends, old + 1) - np.maximum(begins, old)
    shares: Floats = np.clip(overlap, 0, None) * (size / side)
    return shares


def _psnr(small: Floats, true: Floats) -> float:
    return float(10 * np.log10(255**2 / np.mean((small - true) ** 2)))


def _pixels(body: bytes) -> Floats:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), np.float64)


def _stored(pixels: Floats) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.rint(pixels).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
