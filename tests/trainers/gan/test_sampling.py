from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from startup_ray.trainers.gan.sampling import (
    BATCH_ROWS,
    GAP,
    Wanted,
    as_in_training,
    draw,
    grid,
    png,
    wanted_images,
)


def flat(inputs: Any, *, training: bool) -> np.ndarray:
    """Stands in for a generator: images of one shade each, by the noise and the class."""
    assert not training
    noise, classes = inputs if isinstance(inputs, list) else (inputs, np.zeros(len(inputs)))
    shades: np.ndarray = (100 * noise[:, :1] + classes[:, None]).reshape(-1, 1, 1, 1)
    return np.tile(shades, (1, 4, 4, 1))


def test_parts_are_parts_of_the_whole() -> None:
    wanted = wanted_images(seed=7, count=BATCH_ROWS + 40, size=5, classes=np.arange(3))
    whole = draw(flat, wanted, 0, len(wanted))
    parts = [draw(flat, wanted, 0, BATCH_ROWS), draw(flat, wanted, BATCH_ROWS, len(wanted))]
    assert (np.concatenate(parts) == whole).all()
    assert whole.dtype == np.uint8
    assert (whole.min(), whole.max()) == (0, 255)


def test_more_images_begin_with_the_same() -> None:
    few, many = (wanted_images(seed=7, count=count, size=5) for count in (3, 30))
    assert (many.noise[:3] == few.noise).all()
    assert (wanted_images(seed=8, count=3, size=5).noise != few.noise).all()
    assert few.classes is None


def test_classes_come_as_often_as_in_training() -> None:
    labels = np.array([0] * 30 + [1] * 10 + [-1] * 5)
    shuffled = as_in_training(labels, seed=3)
    assert Counter(shuffled.tolist()) == {0: 30, 1: 10}
    wanted = wanted_images(seed=1, count=80, size=2, classes=shuffled)
    assert wanted.classes is not None
    assert Counter(wanted.classes.tolist()) == {0: 60, 1: 20}


def test_a_grid_is_filled_row_by_row() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 1), np.uint8)
    canvas = grid(images, columns=2)
    assert canvas.shape == (3 * 3 + 2 * GAP, 2 * 2 + GAP, 1)
    assert (canvas[:3, 2 + GAP :] == 1).all()
    assert (canvas[-3:, :2] == 4).all()
    assert (canvas[-3:, 2:] == 255).all()


def test_pictures_lose_nothing() -> None:
    for channels in (1, 3):
        image = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
        read = np.asarray(Image.open(io.BytesIO(png(image)))).reshape(image.shape)
        assert (read == image).all()


def test_wanted_images_have_a_length() -> None:
    assert len(Wanted(noise=np.zeros((4, 2), np.float32))) == 4
