from __future__ import annotations

from typing import Any

import pytest

from startup_ray.errors import UsageError
from startup_ray.job import GanOptions, TrainingOptions
from startup_ray.trainers.gan.build import require_trainable
from startup_ray.trainers.program import Spec, needs_examination


def spec(*, conditional: bool = False, shape: tuple[int, int, int] = (28, 28, 1), **told: Any) -> Spec:
    rows = {"classes": ("a", "b"), "class_rows": (30, 31)} | told
    training = TrainingOptions.model_validate(rows.pop("training", {}))
    return Spec(image_shape=shape, model=GanOptions(conditional=conditional), training=training, seed=1, **rows)


def test_what_can_be_trained() -> None:
    for one in (spec(conditional=True), spec(classes=(), class_rows=(61,)), spec(training={"schedule": "cosine"})):
        require_trainable(one)
        assert not needs_examination(one)


@pytest.mark.parametrize(
    ("of", "where", "told"),
    [
        (spec(shape=(30, 30, 1)), "ingest.image.size", "cannot make images of 30x30"),
        (spec(conditional=True, class_rows=(61, 0)), "model.conditional", "class 'b' has no training images"),
        (spec(conditional=True, classes=(), class_rows=()), "model.conditional", "no labels"),
        (spec(training={"learning_rate": 0.1}), "training.learning_rate", "does not take"),
        (spec(training={"augment": {"flip": True}}), "training.augment", "does not take"),
        (spec(training={"precision": "mixed_bfloat16"}), "training.precision", "float32"),
    ],
)
def test_what_cannot(of: Spec, where: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        require_trainable(of)
    assert caught.value.where == where
    assert caught.value.hint


def test_the_best_generator_is_that_of_the_least_fid() -> None:
    assert spec().monitor == "val/fid"
    assert spec().takes_unlabelled
    assert not spec(conditional=True).takes_unlabelled
