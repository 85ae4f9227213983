"""Random changes of training images, drawn for the global batch, so that no worker count changes them.

draw = draws(seed, rows=64)[low:high]       # a worker's share of what all would draw
images = augment(images, draw, options)
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from startup_ray.job import AugmentOptions

DRAWS = 6
"""Numbers drawn per row: flip, shift down, shift right, turn, zoom, contrast."""


def is_active(options: AugmentOptions) -> bool:
    """Whether anything is changed at all."""
    return any(options.model_dump().values())


def draws(seed: Any, rows: int) -> Any:
    """Seed of a step, int64 [2] -> float32 [rows, DRAWS] in [-1, 1), the same on every worker."""
    return tf.random.stateless_uniform([rows, DRAWS], seed, -1.0, 1.0, alg="philox")


def augment(images: Any, draw: Any, options: AugmentOptions) -> Any:
    """float32 [b, H, W, C] in [0, 255] and their draws [b, DRAWS] -> images of the same shape and range.

    What moves in from outside repeats the border's pixels.
    """
    if options.flip or options.shift or options.rotate_deg or options.zoom:
        images = _move(images, draw, options)
    if options.contrast and images.shape[-1] == 4:  # opacity is no brightness
        images = tf.concat([_contrast(images[..., :3], draw, options), images[..., 3:]], axis=-1)
    elif options.contrast:
        images = _contrast(images, draw, options)
    return images


def _contrast(images: Any, draw: Any, options: AugmentOptions) -> Any:
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    factor = tf.reshape(1 + options.contrast * draw[:, 5], [-1, 1, 1, 1])
    return tf.clip_by_value(mean + factor * (images - mean), 0.0, 255.0)


def _move(images: Any, draw: Any, options: AugmentOptions) -> Any:
    """One bilinear resampling: output pixel (x, y) is read at A (x - c) + c + t, c the image's centre."""
    height, width = images.shape[1:3]
    angle = draw[:, 3] * (options.rotate_deg * math.pi / 180)
    scale = 1 + options.zoom * draw[:, 4]
    mirror = tf.where(draw[:, 0] < 0, -1.0, 1.0) if options.flip else tf.ones_like(angle)
    a, b = tf.cos(angle) * scale * mirror, -tf.sin(angle) * scale
    c, d = tf.sin(angle) * scale * mirror, tf.cos(angle) * scale
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    right = centre_x - a * centre_x - b * centre_y + draw[:, 2] * (options.shift * width)
    down = centre_y - c * centre_x - d * centre_y + draw[:, 1] * (options.shift * height)
    zero = tf.zeros_like(angle)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, right, c, d, down, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
