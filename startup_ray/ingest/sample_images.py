"""The images of the samples, made from what scikit-learn brings with it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

CROPS = 1_000
"""Of each photograph."""
CROP = 64
"""Pixels of a side."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Encoded images by their number."""

    folder: str
    """In their URLs."""
    kind: str
    """Their file name's ending."""
    bodies: list[bytes]
    labels: list[str]

    @property
    def item(self) -> str:
        """How ids begin: the folder's name in the singular."""
        return self.folder.removesuffix("s")


def digits() -> Images:
    """8x8 grey digits (Alpaydin and Kaynak, UCI, 1998) as PNGs of 28x28."""
    from sklearn.datasets import load_digits

    found = load_digits()
    small = np.round(found.images * (255 / 16)).astype(np.uint8)  # values 0 to 16
    large = [Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC) for image in small]
    labels = [str(label) for label in found.target]
    return Images(folder="digits", kind="png", bodies=[_encoded(image, "PNG") for image in large], labels=labels)


def photos() -> Images:
    """Square crops of a photograph of a temple in China and of one of a flower, as JPEGs of 64x64."""
    from sklearn.datasets import load_sample_images

    found, random = load_sample_images(), np.random.default_rng(0)
    bodies, labels = [], []
    for name, photograph in zip(found.filenames, found.images, strict=True):
        tops, lefts = (random.integers(0, side - CROP, CROPS) for side in photograph.shape[:2])
        for top, left in zip(tops, lefts, strict=True):
            crop = Image.fromarray(photograph[top : top + CROP, left : left + CROP])
            bodies.append(_encoded(crop, "JPEG", quality=95))
            labels.append(str(name).rsplit("/", 1)[-1].removesuffix(".jpg"))
    return Images(folder="photos", kind="jpeg", bodies=bodies, labels=labels)


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
