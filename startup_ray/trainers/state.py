"""What all programs do with their variables: hand them over, take them back, name them by a digest, save a model."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from startup_ray.errors import StorageError


class Stateful:
    """A program with variables."""

    def _weights(self) -> list[Any]:
        """What has been learned, in order; without the state of seed generators."""
        raise NotImplementedError

    def _variables(self) -> list[Any]:
        """All that training goes on from, in order."""
        raise NotImplementedError

    def arrays(self) -> list[np.ndarray]:
        """All that training goes on from."""
        return _values(self._variables())

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Take over what `arrays` gave.

        Raises:
            StorageError: they are of another model.
        """
        variables = self._variables()
        if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
            raise StorageError("the checkpoint is of another model", hint="use --fresh")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def weights_digest(self) -> str:
        """`sha256:` and hex over the weights' shapes, dtypes and bytes in order; names left out."""
        digest = hashlib.sha256()
        for weight in self._weights():
            array = np.ascontiguousarray(weight)
            digest.update(f"{array.shape}{array.dtype.str}".encode() + array.tobytes())
        return f"sha256:{digest.hexdigest()}"

    def is_finite(self) -> bool:
        """Whether there is no NaN and no infinity among the weights."""
        return all(bool(np.isfinite(weight).all()) for weight in self._weights())


@contextmanager
def replaced(variables: Sequence[Any], values: Sequence[Any]) -> Iterator[None]:
    """With other values in their place for a while."""
    own = _values(variables)
    try:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)


def saved(model: Any) -> bytes:
    """A Keras model as its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in variables]
