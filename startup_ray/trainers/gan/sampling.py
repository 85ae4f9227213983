"""Images from a generator: the same noise gives the same image, whoever draws it and in whatever part.

wanted = noise_and_classes(seed=7, count=64, size=100, classes=labels)
images = draw(model, wanted, 0, 64)         # uint8 [64, H, W, C]
png(grid(images, columns=8))
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH_ROWS = 250
"""Constant, because images differ in their last bits between batch sizes."""
GAP = 2
"""Pixels between the images of a grid."""
WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What images are made from."""

    noise: np.ndarray
    """float32 [n, Z]"""
    classes: np.ndarray | None = None
    """int32 [n]; None: the generator is not asked for a class."""

    def __len__(self) -> int:
        return len(self.noise)


def wanted_images(seed: int, count: int, size: int, classes: np.ndarray | None = None) -> Wanted:
    """Noise float32 [count, size] from a seed; classes int [m] are repeated as often as needed."""
    noise = np.random.default_rng([seed, 0]).standard_normal((count, size), np.float32)
    return Wanted(noise=noise, classes=None if classes is None else np.resize(classes, count).astype(np.int32))


def as_in_training(labels: np.ndarray, seed: int) -> np.ndarray:
    """Classes in a random order, each as often as in training; labels int [m], those below 0 are left out."""
    return np.random.default_rng([seed, 1]).permutation(labels[labels >= 0])


def draw(model: Any, wanted: Wanted, start: int, stop: int) -> np.ndarray:
    """uint8 [stop - start, H, W, C]; `start` is a multiple of BATCH_ROWS, so that parts are parts of the whole."""
    found = []
    for low in range(start, stop, BATCH_ROWS):
        here = slice(low, min(low + BATCH_ROWS, stop))
        noise = wanted.noise[here]
        inputs = noise if wanted.classes is None else [noise, wanted.classes[here]]
        found.append(np.asarray(model(inputs, training=False)))
    return np.clip(np.round(np.concatenate(found)), 0, 255).astype(np.uint8)


def flat(images: np.ndarray) -> np.ndarray:
    """[n, H, W, C] -> [n, pixels]."""
    return images.reshape(len(images), -1)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [n, H, W, C] -> one image uint8 [.., .., C], row by row; what is left of the last row is white."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), WHITE, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    return canvas


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 1 or 3] -> a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "PNG", optimize=True)
    return stream.getvalue()
