"""What is refused of a user's model, each by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from startup_ray.errors import UsageError
from startup_ray.job import PythonOptions, TrainingOptions
from startup_ray.trainers.program import Spec, examine
from startup_ray.usercode import locate

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # a Keras variable under numpy 2
]


def spec(build: str, training: TrainingOptions | None = None, **args: Any) -> Spec:
    return Spec(
        image_shape=(8, 8, 1),
        classes=("a", "b", "c"),
        class_rows=(30, 30, 40),
        model=PythonOptions(build=build, args=args),
        training=training or TrainingOptions(),
        seed=5,
        code=locate(build),
    )


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("softmax", "returns probabilities, not logits"),
        ("classes", r"an output of shape \(4, 4\) for 4 images, not \(4, 3\)"),
        ("own dice", "draws random numbers that no seed of Keras decides"),
        ("loss of vectors", "loss MeanSquaredError"),
        ("metric that fails", "the model fails on 4 random images"),
        ("activity", r"layer 'dense\w*' has an activity regulariser"),
        ("own step", "OwnStep.train_step is overridden"),
        ("state", "counting/seen changes in a training step without a gradient"),
        ("add_loss", r"adds a loss that depends on the images \(add_loss\)"),
        ("unregistered", "cannot be saved and loaded again"),
        ("renorm", "renorm is not supported"),
        ("loss by name", "compiled with the loss 'sparse_categorical_crossentropy'"),
        ("loss of probabilities", "SparseCategoricalCrossentropy takes probabilities"),
        ("summed loss", "reduction 'sum'"),
        ("loss weights", "loss_weights are not supported"),
        ("accumulating", "accumulates gradients over steps"),
        ("metric", "metric 'largest' does not add up over workers"),
        ("no model", "tests.nets:bad returned a int, not a keras.Model"),
        ("raises", "tests.nets:bad failed: ZeroDivisionError: no luck"),
    ],
)
def test_what_does_not_keep_the_contract_is_refused_by_name(fault: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        examine(spec("tests.nets:bad", fault=fault))
    assert caught.value.where == "model.build"


@pytest.mark.parametrize("build", ["small_resnet", "subclassed", "one_hot", "counted_by_integers", "plain"])
def test_what_keeps_it_is_taken_and_left_as_it_was(build: str) -> None:
    from startup_ray.trainers import contract
    from startup_ray.trainers.models import build_network

    one = spec(f"tests.nets:{build}")
    network = build_network(one.image_shape, 3, one.model, one.code)
    before = [np.asarray(weight).copy() for weight in network.weights]
    contract.require(network, one.image_shape, 3)
    for weight, old in zip(network.weights, before, strict=True):
        assert (np.asarray(weight) == old).all()
    assert examine(one) == ""


def test_options_that_a_compiled_model_decides_itself_are_refused() -> None:
    with pytest.raises(UsageError, match=r"training.learning_rate is set, but the model .* is compiled"):
        examine(spec("tests.nets:small_resnet", TrainingOptions(learning_rate=0.1)))
    examine(spec("tests.nets:subclassed", TrainingOptions(learning_rate=0.1, label_smoothing=0.1, ema=0.9)))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        ("tests.no_such_module:build", "tests.no_such_module: ModuleNotFoundError: No module named"),
        ("tests.nets:no_such_function", "tests.nets:no_such_function: the module has no such function"),
        ("tests.nets:LOGITS", "no luck|failed|returned"),
    ],
)
def test_a_function_that_is_not_there(build: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        examine(spec(build))


def test_a_compiled_model_is_plain_again_so_that_only_the_network_is_saved(tmp_path: Any) -> None:
    import zipfile

    import keras

    from startup_ray.trainers.program import make_program
    from startup_ray.trainers.sync import alone

    program = make_program(spec("tests.nets:small_resnet"), alone())
    images, labels = np.zeros((64, 8, 8, 1), np.uint8), np.zeros(64, np.int32)
    program.train_step(images, labels, 0)
    program.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert not again.compiled
    assert "optimizer" not in zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()
    assert [np.asarray(a).tolist() for a in again.weights] == [np.asarray(b).tolist() for b in program.model.weights]
