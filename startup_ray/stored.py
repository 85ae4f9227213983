"""Images as a dataset stores them -> pixels. The one place beside `trainers/pixels.py` that knows `ingest.image.store`.

    pixels = pixels_of(encoded, dataset.image)      # uint8 [height, width, channels]

Law: stored as png, raw or original, an image has the same pixels, those that ingest decoded.
"""

from __future__ import annotations

import io
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from startup_ray.ingest.decode import decode
from startup_ray.job import ImageOptions

DAMAGED = (OSError, ValueError, SyntaxError)
"""What is raised for an image that cannot be read; Pillow raises each of them."""


def pixels_of(encoded: bytes, options: ImageOptions) -> NDArray[np.uint8]:
    """One value of the column `image` -> uint8 [height, width, channels] in [0, 255].

    Args:
        options: of the dataset, `Dataset.image`.

    Raises:
        OSError, ValueError, SyntaxError: damaged.
    """
    if options.store == "raw":
        return np.frombuffer(encoded, np.uint8).reshape(options.shape)
    if options.store == "original":
        return pixels_of_body(encoded, options)
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], options.channels)


def pixels_of_body(body: bytes, options: ImageOptions) -> NDArray[np.uint8]:
    """A fetched body that was accepted -> the pixels that ingest made of it.

    Nothing limits them: `fetch.max_pixels` was judged at ingest, and may have been lowered since.

    Raises:
        ValueError: damaged.
    """
    decoded = decode(body, options, max_pixels=sys.maxsize)
    if decoded.pixels is None:
        raise ValueError(f"{decoded.status}: {decoded.reason}")
    return decoded.pixels
