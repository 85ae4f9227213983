"""What must hold on an object store, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from startup_ray.errors import RunHeldError, StorageError
from startup_ray.lease import hold
from startup_ray.trainers import checkpoint
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.loop import Position
from tests.s3 import KEYS, Server, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield server


def test_a_folder_reads_and_writes(server: Server) -> None:
    folder = server.folder("plain") / "deep"
    assert folder.list() == []
    assert not folder.exists("a/x")
    for data in (b"1", b"22"):
        folder.put_whole("a/x", data)
        assert folder.read("a/x") == data
    folder.put_whole("a/b/y", b"")
    assert folder.list("a") == ["b", "x"]
    assert folder.parent.list() == ["deep"]
    folder.delete("a")
    folder.delete("a")
    assert folder.list() == []
    with pytest.raises(FileNotFoundError):
        folder.read("a/x")


def test_one_writer(server: Server) -> None:
    folder = server.folder("lease")
    with hold(folder) as lease:
        lease.fence.check()
        with pytest.raises(RunHeldError, match="is writing this folder"), hold(folder):
            pass
    with hold(folder) as later:
        with pytest.raises(RunHeldError, match="has taken over"):
            lease.fence.check()
        assert later.fence.number == lease.fence.number + 1


def state(step: int) -> State:
    return State(position=Position(step=step, epoch=0), arrays=[np.full(5, step, np.float32)])


def test_checkpoints_are_whole_or_absent(server: Server) -> None:
    folder = server.folder("checkpoints")
    with hold(folder) as lease:
        for step in (1, 2, 3, 4):
            checkpoint.save(folder, lease.fence, state(step), keep=3)
    assert checkpoint.steps(folder) == [2, 3, 4]
    folder.put_whole("checkpoints/4/variables.npz", folder.read("checkpoints/4/variables.npz")[:-9])
    folder.delete("checkpoints/3/state.json")
    notes: list[str] = []
    found = checkpoint.newest(folder, note=notes.append)
    assert found is not None
    assert found.position.step == 2
    assert [note.split()[1] for note in notes] == ["4", "3"]


@pytest.mark.ray  # seconds: it tries again for as long as pyarrow does
def test_a_server_that_has_gone_is_told_with_the_place(server: Server) -> None:
    with s3_server() as other:
        folder = other.folder("gone")
        folder.put_whole("x", b"1")
        other.process.kill()
        other.process.wait()
        with pytest.raises(StorageError, match=r"cannot write here.*[Cc]onnect") as caught:
            folder.put_whole("x", b"2")
    assert "s3://bucket/gone/x" in (caught.value.where or "")
