"""First weights from another model, and layers that stay as they are.

freeze(model, ["conv*"])
note = take_weights(model, load_model(folder, "model.keras"))       # "init_from: 12 of 13 layers"
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from startup_ray.errors import UsageError


def freeze(model: Any, patterns: Sequence[str]) -> None:
    """Keep layers out of training by name or shell pattern, whole networks inside the model or layers of theirs.

    A frozen BatchNormalization only infers.

    Raises:
        UsageError: a pattern that is no layer's, or nothing would be left to train.
    """
    layers = list(model._flatten_layers(include_self=False))
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
    given, wanted = _own_weights(other), _own_weights(model)
    fitting = [name for name, own in wanted.items() if name in given and _shapes(own) == _shapes(given[name])]
    if not fitting:
        hint = f"its layers: {', '.join(given) or 'none'}; this model's: {', '.join(wanted)}"
        raise UsageError("no layer has the name and shapes of one of this model", where="training.init_from", hint=hint)
    for name in fitting:
        for weight, value in zip(wanted[name], given[name], strict=True):
            weight.assign(value)
    left = [name for name in wanted if name not in fitting]
    rest = f"; not {', '.join(left)}" if left else ""
    return f"{len(fitting)} of {len(wanted)} layers begin with the weights of init_from{rest}"


def _own_weights(model: Any) -> dict[str, list[Any]]:
    """By name of a layer the weights that it holds itself, and not the layers inside it."""
    layers = {layer.name: layer for layer in model._flatten_layers()}
    own = {name: [*layer._trainable_variables, *layer._non_trainable_variables] for name, layer in layers.items()}
    return {name: weights for name, weights in own.items() if weights}


def _shapes(weights: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in weights]
