from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.ray

ROWS, SIDE = 40, 16


def images(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (ROWS, SIDE, SIDE, channels)).astype(np.float32)


def test_a_shift_moves_by_whole_pixels_and_fills_with_grey() -> None:
    from startup_ray.trainers.gan.augment import augment, draws

    before, draw = images(), np.array(draws([1, 2], ROWS))
    after = np.array(augment(before, draw, ("shift",)))
    offsets = set()
    for one, other in zip(before[..., 0], after[..., 0], strict=True):
        padded = np.pad(one, 2)
        found = [(i, j) for i in range(5) for j in range(5) if (padded[i : i + SIDE, j : j + SIDE] == other).all()]
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 15
    assert {i for i, _ in offsets} == {j for _, j in offsets} == set(range(5))


def test_a_cutout_is_a_square_of_grey() -> None:
    from startup_ray.trainers.gan.augment import augment, draws

    before = images(3)
    after = np.array(augment(before, draws([1, 2], ROWS), ("cutout",)))
    changed = (after != before).all(axis=3)
    assert (after[changed] == 0).all()
    assert (after[~changed] == before[~changed]).all()
    assert {int(mask.any(axis=0).sum()) for mask in changed} <= set(range(SIDE // 4 - 1, SIDE // 2 + 1))
    assert max(mask.sum() for mask in changed) == (SIDE // 2) ** 2


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_each_image_alone(channels: int) -> None:
    from startup_ray.trainers.gan.augment import augment, draws

    before, draw = images(channels), np.array(draws([1, 2], ROWS))
    after = np.array(augment(before, draw, ("color",)))
    alone = np.array(augment(before[7:8], draw[7:8], ("color",)))
    np.testing.assert_allclose(after[7:8], alone, rtol=1e-5, atol=1e-6)
    means = after.mean(axis=(1, 2, 3)) - before.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, draw[:, 0] - 0.5, atol=1e-5)


def test_gradients_go_through_and_nothing_asked_for_changes_nothing() -> None:
    import tensorflow as tf

    from startup_ray.trainers.gan.augment import augment, draws

    before, draw = tf.constant(images()), draws([1, 2], ROWS)
    assert augment(before, draw, ()) is before
    with tf.GradientTape() as tape:
        tape.watch(before)
        after = augment(before, draw, ("shift", "cutout"))
    gradient = np.array(tape.gradient(after, before))
    kept = np.array(after) != 0
    assert gradient.sum() == kept.sum()  # each pixel that is left counts once
    assert set(np.unique(gradient)) == {0.0, 1.0}
