"""First weights from another model, and layers that stay as they are.

freeze(model, ["conv*"])
note = take_weights(model, load_model(folder, "model.keras"))       # "init_from: 12 of 13 layers"
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import numpy as np

from startup_ray.errors import UsageError


def freeze(model: Any, patterns: Sequence[str]) -> None:
    """Keep layers out of training, nested ones too, by name or shell pattern; a frozen BatchNormalization only infers.

    Raises:
        UsageError: a pattern that is no layer's, or nothing would be left to train.
    """
    layers = _layers(model)
    for pattern in patterns:
        found = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not found:
            known = ", ".join(layer.name for layer in layers if layer.weights)
            raise UsageError(f"no layer is called {pattern!r}", where="training.freeze", hint=f"layers: {known}")
        for layer in found:
            layer.trainable = False
    if not model.trainable_variables:
        raise UsageError("all layers are frozen: nothing is left to train", where="training.freeze")


def take_weights(model: Any, other: Any) -> str:
    """Give each layer the weights of the other model's layer of the same name and shapes; returns how many.

    Layers that differ, such as a top for other classes, keep their own.

    Raises:
        UsageError: no layer fits.
    """
    given = {layer.name: layer for layer in _layers(other) if layer.weights}
    wanted = [layer for layer in _layers(model) if layer.weights]
    fitting = [layer for layer in wanted if layer.name in given and _shapes(layer) == _shapes(given[layer.name])]
    if not fitting:
        hint = f"its layers: {', '.join(given) or 'none'}; this model's: {', '.join(layer.name for layer in wanted)}"
        raise UsageError("no layer has the name and shapes of one of this model", where="training.init_from", hint=hint)
    for layer in fitting:
        layer.set_weights([np.asarray(weight) for weight in given[layer.name].weights])
    left = [layer.name for layer in wanted if layer not in fitting]
    rest = f"; not {', '.join(left)}" if left else ""
    return f"{len(fitting)} of {len(wanted)} layers begin with the weights of init_from{rest}"


def _layers(model: Any) -> list[Any]:
    """Layers that hold weights of their own and not those of layers inside them."""
    found = model._flatten_layers(include_self=False)
    return [layer for layer in found if not list(layer._flatten_layers(include_self=False))]


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
