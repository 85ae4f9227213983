from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.errors import RunHeldError, StorageError, TrainingError
from startup_ray.job import TrainingOptions
from startup_ray.lease import hold
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.loop import Plan, Position
from startup_ray.trainers.messages import Findings
from startup_ray.trainers.recorder import Recorder
from startup_ray.trainers.writer import Writer


@dataclass(frozen=True)
class Told:
    """Stands in for `Sync`, with what the others pass: None when they pass the same."""

    others: Any = None
    rank: int = 0

    def gather(self, values: np.ndarray) -> np.ndarray:
        return values[None]

    def all_equal(self, digest: str) -> bool:
        return self.others is None or digest == self.others

    def on_rank_0(self, act: Callable[[], Any]) -> Any:
        return act()


@dataclass(frozen=True)
class Program:
    """Stands in for a classifier."""

    sync: Told
    finite: bool = True

    def weights_digest(self) -> str:
        return "sha256:aa"

    def is_finite(self) -> bool:
        return self.finite

    def messages(self) -> list[int]:
        return [3]

    def arrays(self) -> list[np.ndarray]:
        return [np.ones(3, np.float32)]


@contextmanager
def recorder(folder: Folder, program: Program) -> Iterator[Recorder]:
    with hold(folder) as lease, Writer() as writer:
        yield Recorder(
            folder=folder,
            fence=lease.fence,
            options=TrainingOptions(),
            monitor="val/loss",
            classes=["a", "b"],
            plan=Plan(steps=9, steps_per_epoch=9, steps_per_call=1, checkpoint_every_steps=3),
            program=program,
            validate=lambda _: Findings(),
            state=State(arrays=[]),
            writer=writer,
            emit=lambda _: None,
        )


HERE = Position(step=3, epoch=0, sums=(1.0, 2.0))


def test_a_checkpoint_is_whole_once_the_writer_is_done(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with recorder(folder, Program(Told())) as books:
        books.on_save(HERE)
    found = checkpoint.newest(folder, note=pytest.fail)
    assert found is not None
    assert found.position == HERE


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (Program(Told(others="sha256:bb")), "workers hold different weights at step 3"),
        (Program(Told(), finite=False), "weights are not finite after step 3"),
    ],
)
def test_weights_that_differ_or_are_no_numbers_are_never_saved(tmp_path: Path, program: Program, told: str) -> None:
    folder = Folder(str(tmp_path))
    with recorder(folder, program) as books, pytest.raises(TrainingError, match=told):
        books.on_save(HERE)
    assert checkpoint.steps(folder) == []


def test_storage_that_fails_in_the_background_is_met_at_the_next_save(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))

    def saves() -> None:
        with recorder(folder, Program(Told())) as books:
            (tmp_path / "checkpoints").write_text("a file where a folder should be")
            for step in (3, 6, 9):
                books.on_save(replace(HERE, step=step))

    with pytest.raises(StorageError, match="cannot write here"):
        saves()


def test_a_run_that_was_taken_over_is_met_too(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))

    def saves() -> None:
        with recorder(folder, Program(Told())) as books:
            record = json.loads(folder.read("lease/1.json"))
            folder.put_whole("lease/2.json", json.dumps({**record, "nonce": "other"}).encode())
            books.on_save(HERE)
            books.on_save(HERE)
            books.on_save(HERE)

    with pytest.raises(RunHeldError, match="has taken over"):
        saves()
    assert "LATEST" not in folder.list()
