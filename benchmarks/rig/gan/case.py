"""The digits on which GANs are compared, and how each contestant is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from startup_ray.job import GanOptions, TrainingOptions
from startup_ray.trainers.gan.build import make_gan
from startup_ray.trainers.program import Spec

SHAPE = (28, 28, 1)
CLASSES = 10
TRAIN = 1_197
"""Of 1,797; the rest is the test set."""
BATCH = 32
WIDTH = 16
OPTIONS = {
    "dcgan": GanOptions(recipe="dcgan", width=WIDTH),
    "r3gan": GanOptions(width=WIDTH),
    "r3gan-conditional": GanOptions(width=WIDTH, conditional=True),
}


@dataclass(frozen=True)
class Digits:
    """uint8 [n, 28, 28, 1] and int32 [n] of each set."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits() -> Digits:
    """scikit-learn's, made larger with bicubic interpolation; the same split every time."""
    found = load_digits()
    images = np.stack([_enlarged(image) for image in found.images])[..., None]
    order = np.random.default_rng(1234).permutation(len(images))
    images, labels = images[order], found.target[order].astype(np.int32)
    return Digits(images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])


def program(kind: str, sync: Any, *, seed: int = 0, batch: int = BATCH) -> Any:
    """Of production, as a worker makes it."""
    spec = Spec(
        image_shape=SHAPE,
        classes=tuple(map(str, range(CLASSES))),
        class_rows=(TRAIN // CLASSES,) * CLASSES,
        model=OPTIONS[kind],
        training=TrainingOptions(global_batch=batch),
        seed=seed,
    )
    return make_gan(spec, sync)


def _enlarged(image: np.ndarray) -> np.ndarray:
    pixels = (image * (255 / 16)).round().astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(SHAPE[:2], Image.Resampling.BICUBIC))
