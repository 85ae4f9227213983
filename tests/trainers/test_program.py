"""What a program is made from, as far as it can be said without TensorFlow."""

from __future__ import annotations

import pytest

from startup_ray.errors import UsageError
from startup_ray.job import ApplicationOptions, CnnOptions, TrainingOptions
from startup_ray.trainers.program import Spec, class_weights, needs_examination, precision


def spec(**training: object) -> Spec:
    options = TrainingOptions.model_validate({"global_batch": 10, **training})
    rows = (30, 31, 34)
    return Spec(
        image_shape=(8, 8, 1), classes=("a", "b", "c"), class_rows=rows, model=CnnOptions(), training=options, seed=1
    )


def test_steps_are_those_of_the_epochs_unless_they_are_given() -> None:
    assert (spec(epochs=3).steps_per_epoch, spec(epochs=3).steps) == (9, 27)
    assert spec(steps=5).steps == 5


def test_classes_that_weigh_the_same_together() -> None:
    weights = class_weights("balanced", ("a", "b"), (30, 90))
    assert weights == pytest.approx((2.0, 2 / 3))
    assert weights[0] * 30 == pytest.approx(weights[1] * 90)
    assert class_weights("balanced", ("a", "b"), (0, 9))[1] == 0.5


def test_classes_that_are_not_named_weigh_one() -> None:
    assert class_weights({"b": 3.0}, ("a", "b"), (1, 1)) == (1.0, 3.0)
    assert class_weights({}, ("a", "b"), (1, 1)) == ()


def test_a_class_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="no class 'z'") as caught:
        class_weights({"z": 1.0}, ("a", "b"), (1, 1))
    assert "a, b" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "gpu", "policy"),
    [
        ("auto", "", "float32"),
        ("auto", "6.1", "float32"),
        ("auto", "7.5", "mixed_float16"),
        ("auto", "8.0", "mixed_bfloat16"),
        ("auto", "12.0", "mixed_bfloat16"),
        ("float32", "9.0", "float32"),
        ("mixed_bfloat16", "", "mixed_bfloat16"),
    ],
)
def test_the_precision_follows_the_gpu_unless_it_is_given(wanted: str, gpu: str, policy: str) -> None:
    assert precision(wanted, gpu) == policy


def test_a_plain_cnn_is_not_looked_at_before() -> None:
    assert not needs_examination(spec())
    assert needs_examination(spec(freeze=["a"]))
    one = spec()
    other = Spec(**{**one.__dict__, "model": ApplicationOptions(name="MobileNetV2")})
    assert needs_examination(other)
