"""What a model must be like to be trained by several workers as by one, and what is refused by name.

    require(model, image_shape, num_classes)        # UsageError naming what does not hold

Not only words are checked: rows of random images are sent through the model, as a training step would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from startup_ray.errors import UsageError, first_line
from startup_ray.trainers.norm import batch_norms, require_supported
from startup_ray.trainers.objective import ONE_HOT, compiled_metrics
from startup_ray.usercode import WHERE

OWN_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics", "_compute_loss")


def require(model: Any, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """See that a user's model keeps the contract.

    Raises:
        UsageError: the first thing that does not.
    """
    require_supported(model)
    rows = num_classes + 1  # another number than that of the classes, so that the two cannot be confused
    images = np.random.default_rng(0).integers(0, 256, (rows, *image_shape)).astype(np.float32)
    try:
        problem, hint = next(_problems(model, images, num_classes), ("", ""))
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"the model fails on {rows} random images: {reason}", where=WHERE) from error
    if problem:
        raise UsageError(problem, where=WHERE, hint=hint)


def _problems(model: Any, images: np.ndarray, num_classes: int) -> Iterator[tuple[str, str]]:
    for check in (_own_steps, _activity):
        yield from check(model)
    yield from _output(model, images, num_classes)
    yield from _states(model, images)
    yield from _randomness(model, images)
    yield from _penalties(model, images)
    if model.compiled:
        yield from _loss(model, num_classes)
        yield from _optimizer(model)
        yield from _metrics(model, num_classes)
    yield from _saved(model, images)


def _own_steps(model: Any) -> Iterator[tuple[str, str]]:
    for name in OWN_STEPS:
        owner = next((kind for kind in type(model).__mro__ if name in vars(kind)), None)
        if owner is not None and not owner.__module__.startswith("keras."):
            hint = "put the loss into compile(), and what changes the images into layers"
            yield f"{owner.__name__}.{name} is overridden: a step of several workers would not be the same", hint


def _activity(model: Any) -> Iterator[tuple[str, str]]:
    for layer in model._flatten_layers():
        if getattr(layer, "activity_regularizer", None) is not None:
            hint = "regularise weights instead (kernel_regularizer)"
            yield f"layer {layer.name!r} has an activity regulariser, which does not add up over workers", hint


def _output(model: Any, images: np.ndarray, num_classes: int) -> Iterator[tuple[str, str]]:
    outputs = model(images, training=False)
    shape = getattr(outputs, "shape", None)
    wanted = (len(images), num_classes)
    if shape is None or tuple(shape) != wanted:
        given = "several outputs" if shape is None else f"an output of shape {tuple(shape)}"
        hint = f"it must return logits [rows, {num_classes}]: one per class of the dataset"
        yield f"the model has {given} for {len(images)} images, not {wanted}", hint
    values = np.asarray(outputs, np.float64)
    if not np.isfinite(values).all():
        yield "the model's outputs are not finite", "look at its rescaling: images are in [0, 255]"
    if (values >= 0).all() and np.allclose(values.sum(axis=-1), 1, atol=1e-3):
        yield "the model returns probabilities, not logits", "leave out the softmax of its last layer"


def _states(model: Any, images: np.ndarray) -> Iterator[tuple[str, str]]:
    """Of layers that keep a state of their own while they train each worker would have another."""
    ours = {id(weight) for layer in batch_norms(model) for weight in layer.weights}
    with _kept(model) as before:
        model(images, training=True)
        changed = [w for w, old in zip(model.weights, before, strict=True) if (np.asarray(w) != old).any()]
    for weight in changed:
        if id(weight) not in ours:
            hint = "only BatchNormalization may, whose statistics are those of all workers"
            yield f"{weight.path} changes in a training step without a gradient: workers would differ", hint


def _randomness(model: Any, images: np.ndarray) -> Iterator[tuple[str, str]]:
    """What is drawn must follow from the states of Keras' seed generators, which are set before each step."""
    weights = {id(weight) for weight in model.weights}
    seeds = [variable for variable in model.variables if id(variable) not in weights]

    def outputs() -> np.ndarray:
        for seed in seeds:
            seed.assign(np.zeros(seed.shape, seed.dtype))
        return np.asarray(model(images, training=True), np.float64)

    with _kept(model):
        is_repeated = np.allclose(outputs(), outputs(), rtol=1e-4, atol=1e-4)
    if not is_repeated:
        hint = "give the layer a keras.random.SeedGenerator, as Keras' own layers have"
        yield "the model draws random numbers that no seed of Keras decides: a resumed run would differ", hint


@contextmanager
def _kept(model: Any) -> Iterator[list[np.ndarray]]:
    """The weights as they are, which are put back afterwards."""
    before = [np.asarray(weight).copy() for weight in model.weights]
    yield before
    for weight, old in zip(model.weights, before, strict=True):
        weight.assign(old)


def _penalties(model: Any, images: np.ndarray) -> Iterator[tuple[str, str]]:
    def penalties(images: np.ndarray) -> list[float]:
        model(images, training=False)
        return [float(penalty) for penalty in model.losses]

    if penalties(images) != penalties(images[::-1] / 2):
        yield "the model adds a loss that depends on the images (add_loss)", "put it into the loss of compile()"


def _loss(model: Any, num_classes: int) -> Iterator[tuple[str, str]]:
    hint = "for example keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
    if not isinstance(model.loss, keras.losses.Loss):
        kind = "several losses" if isinstance(model.loss, list | tuple | dict) else f"the loss {model.loss!r}"
        yield f"the model is compiled with {kind}; one keras.losses.Loss is needed", hint
        return
    name = type(model.loss).__name__
    if model.loss.reduction != "sum_over_batch_size":
        yield f"loss {name} has the reduction {model.loss.reduction!r}, not 'sum_over_batch_size'", hint
    if model.loss.get_config().get("from_logits") is False:
        yield f"loss {name} takes probabilities; the model returns logits", "build it with from_logits=True"
    if model._compile_loss is not None and model._compile_loss._user_loss_weights is not None:
        yield "loss_weights are not supported", "leave them out of compile()"
    (labels, outputs), (others, _) = _made_up(model, num_classes)
    try:
        losses = np.asarray(model.loss.call(labels, outputs))
        mixed = np.asarray(model.loss.call(np.concatenate([labels[:1], others[1:]]), outputs))
    except Exception as error:  # noqa: BLE001 - whatever a loss of the user's raises
        yield f"loss {name} cannot take class numbers: {first_line(error)}", hint
        return
    if losses.shape[:1] != (len(labels),) or not np.allclose(losses[0], mixed[0]):
        yield f"loss {name} does not give each row a loss of its own", hint


def _optimizer(model: Any) -> Iterator[tuple[str, str]]:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # behind the scaling of losses
    if getattr(optimizer, "gradient_accumulation_steps", None):
        yield "the optimizer accumulates gradients over steps", "use training.accumulate, which does so within a step"


def _metrics(model: Any, num_classes: int) -> Iterator[tuple[str, str]]:
    """Whether a state after two batches is the sum of the states after each: then it is for any split of the rows."""
    halves = _made_up(model, num_classes)
    for metric in compiled_metrics(model, *halves[0]):
        start = _state(metric, [])
        one, two, both = _state(metric, halves[:1]), _state(metric, halves[1:]), _state(metric, halves)
        adds = all(np.allclose(a + b, c, rtol=1e-4, atol=1e-4) for a, b, c in zip(one, two, both, strict=True))
        if not adds or any(value.any() for value in start):
            hint = "use metrics made of sums, such as keras.metrics.Mean and those of classification"
            yield f"metric {metric.name!r} does not add up over workers", hint


def _made_up(model: Any, num_classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two batches of labels, as the loss wants them, and outputs; another number of rows than of classes."""
    rng, batches = np.random.default_rng(1), []
    for _ in range(2):
        classes = rng.integers(0, num_classes, num_classes + 1).astype(np.int32)
        labels = np.eye(num_classes, dtype=np.float32)[classes] if isinstance(model.loss, ONE_HOT) else classes
        batches.append((labels, rng.uniform(0.0, 1.0, (len(classes), num_classes)).astype(np.float32)))
    return batches


def _state(metric: Any, batches: Sequence[tuple[Any, Any]]) -> list[np.ndarray]:
    metric.reset_state()
    for labels, outputs in batches:
        metric.update_state(labels, outputs)
    states = [np.asarray(variable, np.float64) for variable in metric.variables]
    metric.result()
    metric.reset_state()
    return states


def _saved(model: Any, images: np.ndarray) -> Iterator[tuple[str, str]]:
    hint = "decorate its classes with @keras.saving.register_keras_serializable() and give them a get_config()"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        try:
            model.save(path)
            again = keras.saving.load_model(path, compile=False, safe_mode=True)
            same = np.allclose(again(images, training=False), model(images, training=False), rtol=1e-3, atol=1e-3)
        except Exception as error:  # noqa: BLE001 - whatever the user's classes raise
            yield f"the model cannot be saved and loaded again: {type(error).__name__}: {first_line(error)}", hint
            return
    if not same:
        yield "the model gives other outputs after it was saved and loaded again", hint
