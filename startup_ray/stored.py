"""Images as a dataset stores them -> pixels. The one place beside `trainers/pixels.py` that knows `ingest.image.store`.

pixels = pixels_of(encoded, dataset)        # uint8 [height, width, channels]
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from startup_ray.dataset import Dataset


def pixels_of(encoded: bytes, dataset: Dataset) -> NDArray[np.uint8]:
    """One value of the column `image` -> uint8 [height, width, channels] in [0, 255].

    Raises:
        OSError, ValueError, SyntaxError: damaged.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], dataset.image_shape[2])
