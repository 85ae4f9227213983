from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from startup_ray.job import AugmentOptions

pytestmark = pytest.mark.ray

FLIP, DOWN, RIGHT, TURN, ZOOM, CONTRAST = range(6)


def changed(image: np.ndarray, drawn: dict[int, float], **options: Any) -> np.ndarray:
    """One image [H, W] with these draws; all others are those that change nothing."""
    from startup_ray.trainers.augment import DRAWS, augment

    draw = np.zeros((1, DRAWS), np.float32)
    for column, value in drawn.items():
        draw[0, column] = value
    images = image[None, ..., None].astype(np.float32)
    return np.asarray(augment(images, draw, AugmentOptions(**options)))[0, ..., 0]


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.float32)


def test_draws_that_change_nothing_change_nothing() -> None:
    every = {"flip": True, "shift": 0.5, "rotate_deg": 90, "zoom": 0.5, "contrast": 0.5}
    np.testing.assert_allclose(changed(picture(), {}, **every), picture(), atol=1e-3)


def test_flip_mirrors_left_and_right() -> None:
    np.testing.assert_allclose(changed(picture(), {FLIP: -0.1}, flip=True), picture()[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(changed(picture(), {FLIP: 0.1}, flip=True), picture(), atol=1e-3)


def test_shift_moves_by_a_share_of_the_size_and_repeats_the_border() -> None:
    before = picture(10, 8)
    down = changed(before, {DOWN: -1.0}, shift=0.2)
    np.testing.assert_allclose(down[2:], before[:-2], atol=1e-3)
    np.testing.assert_allclose(down[:2], np.repeat(before[:1], 2, axis=0), atol=1e-3)
    left = changed(before, {RIGHT: 0.5}, shift=0.25)
    np.testing.assert_allclose(left[:, :-1], before[:, 1:], atol=1e-3)


def test_turns_about_the_centre() -> None:
    square = picture(7, 7)
    np.testing.assert_allclose(changed(square, {TURN: 1.0}, rotate_deg=90), np.rot90(square), atol=0.05)
    np.testing.assert_allclose(changed(square, {TURN: -0.5}, rotate_deg=180), np.rot90(square, -1), atol=0.05)


def test_a_turn_and_a_flip_are_one_after_the_other() -> None:
    square = picture(7, 7)
    both = changed(square, {FLIP: -1.0, TURN: 1.0}, flip=True, rotate_deg=90)
    np.testing.assert_allclose(both, np.rot90(square)[:, ::-1], atol=0.05)


def test_zoom_keeps_the_centre() -> None:
    bright = np.zeros((9, 9), np.float32)
    bright[3:6, 3:6] = 200
    closer = changed(bright, {ZOOM: -1.0}, zoom=0.5)
    assert closer[4, 4] == pytest.approx(200, abs=0.01)
    assert closer.sum() > 2.5 * bright.sum()


def test_contrast_leaves_opacity_alone() -> None:
    from startup_ray.trainers.augment import DRAWS, augment

    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 4)).astype(np.float32)
    draw = np.full((2, DRAWS), 0.5, np.float32)
    found, options = np.asarray(augment(images, draw, AugmentOptions(contrast=0.5))), AugmentOptions(contrast=0.5)
    np.testing.assert_array_equal(found[..., 3], images[..., 3])
    np.testing.assert_array_equal(found[..., :3], augment(images[..., :3], draw, options))


def test_contrast_keeps_the_mean_and_the_range() -> None:
    middle = picture() / 4 + 96
    more = changed(middle, {CONTRAST: 1.0}, contrast=0.5)
    assert more.mean() == pytest.approx(middle.mean(), rel=1e-5)
    assert more.std() == pytest.approx(1.5 * middle.std(), rel=1e-4)
    wild = changed(picture(), {CONTRAST: 1.0}, contrast=0.9)
    assert wild.min() == 0
    assert wild.max() == 255


def test_a_row_is_changed_the_same_whatever_rows_come_with_it() -> None:
    """So that no worker count changes what a row becomes."""
    import tensorflow as tf

    from startup_ray.trainers.augment import augment, draws

    options = AugmentOptions(flip=True, shift=0.2, rotate_deg=20, zoom=0.2, contrast=0.3)
    images = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3)).astype(np.float32)
    draw = draws(tf.constant([5, 7], tf.int64), 10)
    whole = np.asarray(augment(images, draw, options))
    parts = [np.asarray(augment(images[cut], draw[cut], options)) for cut in (slice(0, 3), slice(3, 6), slice(6, 10))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len({row.tobytes() for row in np.asarray(draw)}) == 10
    assert not np.allclose(whole, images)
    assert whole.min() >= 0
    assert whole.max() <= 255
