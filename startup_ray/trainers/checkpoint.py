"""States of a run in its folder, each whole or not there.

    save(folder, fence, state, keep=3)      # checkpoints/<step>/variables.npz, then state.json, then LATEST
    state = newest(folder, note=print)      # None: start from the beginning

`state.json` holds the sha256 of `variables.npz` and is written after it: a checkpoint exists if both are there and
agree. One that is torn or damaged is passed over for the one before. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from startup_ray.lease import Fence
from startup_ray.storage import Folder
from startup_ray.trainers.loop import START, Position

CHECKPOINTS = "checkpoints"
LATEST = "LATEST"
VARIABLES = "variables.npz"
STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class State:
    """All that training goes on from."""

    position: Position = START
    best: dict[str, Any] = field(default_factory=dict)
    """Metrics of the epoch that `model.keras` is from; empty before the first."""
    last: dict[str, Any] = field(default_factory=dict)
    """Metrics of the last whole epoch."""
    arrays: list[np.ndarray]


def save(folder: Folder, fence: Fence, state: State, *, keep: int) -> None:
    """Write a checkpoint, point LATEST to it, and drop all but the newest `keep`.

    Raises:
        RunHeldError: another process has taken over the run; LATEST is left alone.
        StorageError: it cannot be written.
    """
    fence.check()
    step = state.position.step
    place = folder / f"{CHECKPOINTS}/{step}"
    text, variables = encode(state)
    place.put_whole(VARIABLES, variables)
    place.put_whole(STATE, text)
    fence.check()
    folder.put_whole(LATEST, f"{step}\n".encode())
    for old in [number for number in steps(folder) if number <= step][:-keep]:
        folder.delete(f"{CHECKPOINTS}/{old}/{STATE}")  # first, so that half a deletion leaves no checkpoint
        folder.delete(f"{CHECKPOINTS}/{old}")


def newest(folder: Folder, *, note: Callable[[str], None]) -> State | None:
    """The state that LATEST names, or else the newest whole one before it; `note` is told what is passed over.

    Without a readable LATEST the search begins at the highest step. Checkpoints above LATEST were never finished.
    """
    limit = _latest(folder)
    for step in reversed(steps(folder)):
        if limit is not None and step > limit:
            continue
        try:
            return read(folder, step)
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            reason = str(error) or type(error).__name__
            note(f"checkpoint {step} is damaged ({reason}), using the one before")
    return None


def steps(folder: Folder) -> list[int]:
    """Steps that have a folder, in order, whole or not."""
    return sorted(int(name) for name in folder.list(CHECKPOINTS) if name.isdigit())


def read(folder: Folder, step: int) -> State:
    """One checkpoint.

    Raises:
        FileNotFoundError, ValueError, KeyError, TypeError: it is not whole.
    """
    place = folder / f"{CHECKPOINTS}/{step}"
    return decode(place.read(STATE), place.read(VARIABLES))


def encode(state: State) -> tuple[bytes, bytes]:
    """State -> text of `state.json`, bytes of `variables.npz`."""
    stream = io.BytesIO()
    np.savez(stream, **{f"{i:05d}": array for i, array in enumerate(state.arrays)})  # type: ignore[arg-type]
    variables = stream.getvalue()
    document = {
        "step": state.position.step,
        "epoch": state.position.epoch,
        "sums": state.position.sums,
        "best": state.best,
        "last": state.last,
        "sha256": hashlib.sha256(variables).hexdigest(),
    }
    return json.dumps(document, indent=2).encode(), variables


def decode(text: bytes, variables: bytes) -> State:
    """The reverse of `encode`.

    Raises:
        ValueError, KeyError, TypeError: it is not whole.
    """
    document = json.loads(text)
    if hashlib.sha256(variables).hexdigest() != document["sha256"]:
        raise ValueError(f"{VARIABLES} is not what {STATE} was written for")
    with np.load(io.BytesIO(variables), allow_pickle=False) as archive:
        arrays = [archive[name] for name in sorted(archive.files)]
    position = Position(step=document["step"], epoch=document["epoch"], sums=tuple(document["sums"]))
    return State(position=position, best=document["best"], last=document["last"], arrays=arrays)


def _latest(folder: Folder) -> int | None:
    try:
        return int(folder.read(LATEST))
    except (FileNotFoundError, ValueError):
        return None
