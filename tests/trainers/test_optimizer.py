from __future__ import annotations

import math
from typing import Any

import pytest

from startup_ray.job import TrainingOptions

pytestmark = pytest.mark.ray


def rate(steps: int = 100, **options: Any) -> Any:
    from startup_ray.trainers.optimizer import make_optimizer

    optimizer = make_optimizer(TrainingOptions(learning_rate=0.5, **options), steps=steps, steps_per_epoch=10)
    return lambda step: float(optimizer._learning_rate(step))


def test_without_options_the_rate_is_the_same_at_every_step() -> None:
    constant = rate()
    assert [constant(step) for step in (0, 1, 99)] == [0.5] * 3


def test_warm_up_rises_in_equal_parts_and_never_is_zero() -> None:
    warm = rate(warmup_steps=4)
    assert [warm(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_the_cosine_begins_after_the_warm_up_and_ends_at_zero() -> None:
    cosine = rate(schedule="cosine", warmup_steps=20)
    assert cosine(20) == pytest.approx(0.5)
    assert cosine(60) == pytest.approx(0.25)
    assert cosine(40) == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert cosine(100) == pytest.approx(0, abs=1e-7)
    assert cosine(99) > 0
    values = [cosine(step) for step in range(20, 101)]
    assert values == sorted(values, reverse=True)


def test_a_warm_up_longer_than_the_run_never_divides_by_zero() -> None:
    odd = rate(steps=3, schedule="cosine", warmup_steps=10)
    assert [odd(step) for step in range(3)] == pytest.approx([0.5 / 11, 1 / 11, 1.5 / 11])


def test_clipping_is_of_all_gradients_together() -> None:
    import keras
    import numpy as np

    from startup_ray.trainers.optimizer import make_optimizer

    optimizer = make_optimizer(TrainingOptions(clip_norm=1.0), steps=10, steps_per_epoch=10)
    variables = [keras.Variable(np.zeros(1, np.float32)) for _ in range(2)]
    optimizer.build(variables)
    optimizer.apply([np.array([30], np.float32), np.array([40], np.float32)], variables)
    moments = [float(np.asarray(value)[0]) for value in optimizer._momentums]
    assert moments == pytest.approx([0.06, 0.08], rel=1e-5)
