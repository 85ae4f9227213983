"""What programs do with their variables: hand them over, take them back, name them by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from startup_ray.errors import StorageError


def arrays_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """Their values, in order."""
    return [np.asarray(variable) for variable in variables]


def restore(variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    """Take over what `arrays_of` gave.

    Raises:
        StorageError: they are of another model.
    """
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise StorageError("the checkpoint is of another model", hint="use --fresh")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def digest_of(weights: Sequence[Any]) -> str:
    """`sha256:` and hex over shapes, dtypes and bytes in order; names left out."""
    digest = hashlib.sha256()
    for weight in weights:
        array = np.ascontiguousarray(weight)
        digest.update(f"{array.shape}{array.dtype.str}".encode() + array.tobytes())
    return f"sha256:{digest.hexdigest()}"


def all_finite(weights: Sequence[Any]) -> bool:
    """Whether there is no NaN and no infinity among them."""
    return all(bool(np.isfinite(weight).all()) for weight in weights)


@contextmanager
def replaced(variables: Sequence[Any], values: Sequence[Any]) -> Iterator[None]:
    """With other values in their place for a while."""
    own = arrays_of(variables)
    try:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
