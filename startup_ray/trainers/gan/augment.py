"""Differentiable augmentation of what the discriminator sees (Zhao et al., arXiv:2006.10738), for small datasets.

    draw = draws(seed, rows=64)[places]             # a worker's share of what all would draw
    images = augment(images, draw, ("shift", "cutout"))

Real and generated images are changed alike, and gradients reach the generator through the change.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tensorflow as tf

DRAWS = 7
"""Numbers drawn per row: brightness, saturation, contrast, shift down and right, cutout's centre down and right."""
SHIFT = 1 / 8
"""Of a side, at most; what moves in is grey."""
CUTOUT = 1 / 2
"""Of a side."""


def draws(seed: Any, rows: int) -> Any:
    """Seed int64 [2] -> float32 [rows, DRAWS] in [0, 1), the same on every worker."""
    return tf.random.stateless_uniform([rows, DRAWS], seed, alg="philox")


def augment(images: Any, draw: Any, kinds: Collection[str]) -> Any:
    """float32 [b, H, W, C] in [-1, 1] and their draws [b, DRAWS] -> images of the same shape."""
    if "color" in kinds:
        images = _color(images, draw)
    if "shift" in kinds:
        images = _shift(images, draw)
    if "cutout" in kinds:
        images = images * _outside(images, draw)
    return images


def _color(images: Any, draw: Any) -> Any:
    brightness, saturation, contrast = (tf.reshape(draw[:, i], [-1, 1, 1, 1]) for i in range(3))
    images = images + brightness - 0.5
    if images.shape[-1] > 1:
        grey = tf.reduce_mean(images, axis=3, keepdims=True)
        images = grey + 2 * saturation * (images - grey)
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return mean + (contrast + 0.5) * (images - mean)


def _shift(images: Any, draw: Any) -> Any:
    """By whole pixels: rows and columns are gathered from a padded image, which has a gradient of its own kind."""
    height, width = images.shape[1:3]
    down, right = (_whole(draw[:, 3 + i], 2 * _most(side) + 1) for i, side in enumerate((height, width)))
    pads = [[0, 0], [_most(height)] * 2, [_most(width)] * 2, [0, 0]]
    padded = tf.pad(images, pads)
    rows = down[:, None] + tf.range(height)
    columns = right[:, None] + tf.range(width)
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def _outside(images: Any, draw: Any) -> Any:
    """float32 [b, H, W, 1]: 0 in a square about a random centre, which may lie partly outside, else 1."""
    height, width = images.shape[1:3]
    inside = []
    for i, side in enumerate((height, width)):
        size = max(int(side * CUTOUT), 1)
        first = _whole(draw[:, 5 + i], side + 1 - size % 2) - size // 2
        places = tf.range(side)[None]
        inside.append((places >= first[:, None]) & (places < first[:, None] + size))
    both = inside[0][:, :, None] & inside[1][:, None, :]
    return 1 - tf.cast(both, images.dtype)[..., None]


def _most(side: int) -> int:
    return int(side * SHIFT + 0.5)


def _whole(draw: Any, count: int) -> Any:
    """[0, 1) -> int32 in [0, count)."""
    return tf.minimum(tf.cast(draw * count, tf.int32), count - 1)
