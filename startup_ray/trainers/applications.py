"""Networks of keras.applications as classifiers: their own preprocessing inside, a new top of logits."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from startup_ray.errors import UsageError, first_line
from startup_ray.job import ApplicationOptions
from startup_ray.trainers.models import logits


def build_application(image_shape: tuple[int, int, int], num_classes: int, options: ApplicationOptions) -> Any:
    """Preprocessing, the network without its top, average over the image, dropout, logits.

    Raises:
        UsageError: no network of this name, wrong arguments, images that it cannot take, or weights that do not fit.
    """
    if image_shape[-1] == 4:
        hint = "set it to 3, or take a cnn or a model of your own"
        raise UsageError(
            "networks of keras.applications know no transparency", where="ingest.image.channels", hint=hint
        )
    build = _find(options.name)
    inputs = keras.Input(image_shape)
    x = preprocess(inputs, _preprocessing(build))
    try:
        network = build(include_top=False, weights=None, input_shape=image_shape, pooling="avg", **options.args)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{options.name}: {first_line(error)}", where="model") from error
    if options.weights != "none":
        _load(network, options.weights)
    x = network(x)
    if options.dropout:
        x = layers.Dropout(options.dropout)(x)
    return keras.Model(inputs, logits(x, num_classes), name=options.kind)


def names() -> list[str]:
    """Names of all networks."""
    return [name for name in dir(keras.applications) if inspect.isfunction(getattr(keras.applications, name))]


def preprocess(x: Any, function: Callable[[Any], Any]) -> Any:
    """A network's preprocessing of RGB in [0, 255] as layers, which are saved with the model.

    It is found by trying: all of Keras' are `factor * x + offset` per channel, some after RGB has become BGR. For
    images of another number of channels there is none, and they go to [-1, 1].
    """
    if x.shape[-1] != 3:
        return layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    offset = _try(function, [0, 0, 0])
    turned = np.stack([_try(function, row) - offset for row in 100 * np.eye(3)])
    if abs(turned[0, 2]) > abs(turned[0, 0]):
        x, turned = keras.ops.flip(x, axis=-1), turned[::-1]
    factor = np.diag(turned) / 100
    if np.allclose(factor, 1) and np.allclose(offset, 0):
        return x
    return layers.Rescaling(factor.tolist(), offset=offset.tolist())(x)


def _try(function: Callable[[Any], Any], pixel: Any) -> np.ndarray:
    return np.asarray(function(np.array(pixel, np.float32).reshape(1, 1, 1, 3).copy()), np.float64).reshape(3)


def _find(name: str) -> Callable[..., Any]:
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise UsageError(f"keras.applications has no {name!r}", where="model.name", hint=hint)
    found: Callable[..., Any] = getattr(keras.applications, name)
    return found


def _preprocessing(build: Callable[..., Any]) -> Callable[[Any], Any]:
    found: Callable[[Any], Any] = importlib.import_module(build.__module__).preprocess_input
    return found


def _load(network: Any, path: str) -> None:
    where = "model.weights"
    if not Path(path).is_file():
        raise UsageError(f"no such file: {path}", where=where, hint="none, or a local .weights.h5 or .h5 file")
    try:
        network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        hint = "it must be of this network without its top, with these args and as many channels"
        raise UsageError(f"{path} does not fit: {first_line(error)}", where=where, hint=hint) from error
