from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from startup_ray.errors import RunHeldError
from startup_ray.lease import Fence, hold
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint
from startup_ray.trainers.checkpoint import State, newest, read, save, steps
from startup_ray.trainers.loop import Position


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


@pytest.fixture
def fence(folder: Folder) -> Iterator[Fence]:
    with hold(folder) as lease:
        yield lease.fence


def state(step: int) -> State:
    arrays: list[np.ndarray] = [np.full((2, 3), step, np.float32), np.array(-0.0, np.float32), np.array(step, np.int64)]
    position = Position(step=step, epoch=step // 10, sums=(0.1 * step, 3.0))
    return State(position=position, best={"val/f1": 0.5, "epoch": 1}, last={"val/f1": 0.4}, arrays=arrays)


def silent(text: str) -> None:
    raise AssertionError(f"nothing to tell, but: {text}")


def test_what_is_saved_comes_back_to_the_bit(folder: Folder, fence: Fence) -> None:
    save(folder, fence, state(7), keep=3)
    found = newest(folder, note=silent)
    assert found is not None
    assert (found.position, found.best, found.last) == (state(7).position, state(7).best, state(7).last)
    for array, expected in zip(found.arrays, state(7).arrays, strict=True):
        assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def test_arrays_keep_their_order_beyond_ten() -> None:
    arrays = [np.array(i) for i in range(25)]
    assert checkpoint.decode(*checkpoint.encode(State(arrays=arrays))).arrays == arrays


def test_a_new_run_has_none(folder: Folder) -> None:
    assert newest(folder, note=silent) is None


def test_only_the_newest_are_kept(folder: Folder, fence: Fence) -> None:
    for step in (5, 10, 15, 20):
        save(folder, fence, state(step), keep=2)
    assert steps(folder) == [15, 20]


def truncate(place: Path) -> None:
    data = (place / "variables.npz").read_bytes()
    (place / "variables.npz").write_bytes(data[: len(data) // 2])


def flip(place: Path) -> None:
    data = bytearray((place / "variables.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "variables.npz").write_bytes(data)


def forget_state(place: Path) -> None:
    (place / "state.json").unlink()


def forget_variables(place: Path) -> None:
    (place / "variables.npz").unlink()


def tear_state(place: Path) -> None:
    (place / "state.json").write_text('{"step": 10, "epo')


@pytest.mark.parametrize("damage", [truncate, flip, forget_state, forget_variables, tear_state])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(
    folder: Folder, fence: Fence, damage: Callable[[Path], None]
) -> None:
    save(folder, fence, state(5), keep=3)
    save(folder, fence, state(10), keep=3)
    damage(Path(folder.path("checkpoints/10")))
    notes: list[str] = []
    found = newest(folder, note=notes.append)
    assert found is not None
    assert found.position.step == 5
    assert len(notes) == 1
    assert "checkpoint 10 is damaged" in notes[0]


def test_a_checkpoint_above_latest_was_never_finished(folder: Folder, fence: Fence) -> None:
    save(folder, fence, state(10), keep=3)
    save(folder, fence, state(15), keep=3)
    folder.put_whole("LATEST", b"10\n")
    found = newest(folder, note=silent)
    assert found is not None
    assert found.position.step == 10


@pytest.mark.parametrize("content", [None, b"", b"\0\0"])
def test_without_a_readable_latest_the_highest_whole_one_counts(
    folder: Folder, fence: Fence, content: bytes | None
) -> None:
    save(folder, fence, state(10), keep=3)
    if content is None:
        folder.delete("LATEST")
    else:
        folder.put_whole("LATEST", content)
    found = newest(folder, note=silent)
    assert found is not None
    assert found.position.step == 10


def test_who_was_taken_over_writes_nothing(folder: Folder) -> None:
    with hold(folder) as first:
        save(folder, first.fence, state(5), keep=3)
    with hold(folder) as second:
        save(folder, second.fence, state(10), keep=3)
        with pytest.raises(RunHeldError, match="has taken over"):
            save(folder, first.fence, state(15), keep=3)
    assert steps(folder) == [5, 10]
    assert folder.read("LATEST") == b"10\n"


def test_pickles_in_a_checkpoint_are_refused(folder: Folder, fence: Fence) -> None:
    harmful = State(position=Position(step=5, epoch=0), arrays=[np.array([{"any": "object"}], dtype=object)])
    save(folder, fence, harmful, keep=3)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read(folder, 5)
