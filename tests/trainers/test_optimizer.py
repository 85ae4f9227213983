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


def test_steps_fall_after_every_so_many_epochs() -> None:
    step = rate(schedule="step", decay_epochs=2, decay_factor=0.5)  # epochs of 10 steps
    assert [step(at) for at in (0, 19, 20, 39, 40)] == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.125])


@pytest.mark.parametrize(
    "name",
    ["adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "lion", "ftrl", "adafactor"],
)
def test_every_optimizer_is_made_and_moves_weights_but_decays_no_bias(name: str) -> None:
    import keras
    import numpy as np

    from startup_ray.trainers.optimizer import make_optimizer

    options = TrainingOptions.model_validate({"optimizer": name, "weight_decay": 0.5, "learning_rate": 0.1})
    optimizer = make_optimizer(options, steps=10, steps_per_epoch=5)
    kernel, bias = (keras.Variable(np.ones((2, 2), np.float32), name=n) for n in ("kernel", "bias"))
    optimizer.build([kernel, bias])
    zero = np.zeros((2, 2), np.float32)
    optimizer.apply([zero, zero], [kernel, bias])
    assert float(np.asarray(kernel)[0, 0]) < 1
    if name != "ftrl":  # which makes weights anew from sums of gradients
        assert float(np.asarray(bias)[0, 0]) == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"momentun": 0.9}, "momentun"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"gradient_accumulation_steps": 2}, "within a step"),
    ],
)
def test_arguments_that_the_optimizer_does_not_know_are_told(args: dict[str, Any], told: str) -> None:
    from startup_ray.errors import UsageError
    from startup_ray.trainers.optimizer import make_optimizer

    with pytest.raises(UsageError, match=told) as caught:
        make_optimizer(TrainingOptions(optimizer="sgd", optimizer_args=args), steps=1, steps_per_epoch=1)
    assert caught.value.where == "training.optimizer_args"
