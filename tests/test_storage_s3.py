"""What must hold on an object store, against a real server."""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Iterator
from contextlib import ExitStack
from math import inf

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.errors import RunHeldError, StorageError
from startup_ray.lease import Fence, hold
from startup_ray.object_store import connect, read_whole, write_whole
from startup_ray.trainers import checkpoint
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.loop import Position
from tests.fakes import Clock
from tests.s3 import KEYS, Server, s3_server
from tests.s3_faults import (
    CUT,
    DENIED,
    DISOWNED,
    FAULTS,
    HELD,
    INTERNAL,
    LOST,
    NO_UPLOAD,
    RESET,
    SILENT,
    SLOW_DOWN,
    FaultProxy,
    Plan,
    healthy,
    in_turn,
    sometimes,
    times,
)

LARGE = bytes(12_000_000)
"""More than one part of an upload, of which pyarrow makes 10 MiB."""
LANDS = {"method": "POST", "path": "uploadId="}
"""The request with which what was uploaded becomes a file, a small one too."""

pytestmark = pytest.mark.ray  # a server that takes seconds to start, and faults that take time


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


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.port, late_s=0.05) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_by_is_not_noticed(proxy: FaultProxy, fault: str) -> None:
    folder = proxy.folder(f"passing-{fault}")
    proxy.plan = sometimes(0.5, seed=5, faults=[fault])
    folder.put_whole("a/x", b"1" * 999)
    folder.put_whole("a/x", b"2" * 999)
    assert folder.read("a/x") == b"2" * 999
    assert folder.exists("a")
    assert folder.list("a") == ["x"]
    assert folder.usage()[0] == 999
    folder.put_whole("a/y", b"3")
    assert folder.read("a/y") == b"3"  # shorter than the text of an error
    folder.delete("a/x")
    assert not folder.exists("a/x")
    assert proxy.faults[fault] >= 5


@pytest.mark.parametrize(
    "plan",
    [
        times(1, LOST, method="POST", path="uploads"),
        times(1, LOST, method="PUT", path="partNumber=1"),
        times(1, CUT, method="PUT", path="partNumber=2"),
        times(1, LOST, method="POST", path="uploadId"),
        times(1, CUT, method="POST", path="uploadId"),
        in_turn([LOST, NO_UPLOAD], method="POST", path="uploadId"),
    ],
)
def test_nor_in_the_parts_of_a_large_file(proxy: FaultProxy, plan: Plan) -> None:
    folder = proxy.folder("large")
    proxy.plan = plan
    folder.put_whole("x", LARGE)
    assert proxy.faults
    assert folder.read("x") == LARGE


@pytest.mark.parametrize("path", ["uploads", "partNumber=1", "partNumber=2", "uploadId"])
def test_a_write_that_fails_leaves_the_old_file(proxy: FaultProxy, path: str) -> None:
    """Whichever of its requests it is."""
    folder = proxy.folder("failing")
    folder.put_whole("new", b"old")
    proxy.plan = times(inf, DENIED, path=path)
    with pytest.raises(StorageError, match=r"cannot write here: .*(Access Denied|ACCESS_DENIED)") as caught:
        folder.put_whole("new", LARGE)
    proxy.plan = healthy
    assert caught.value.where == folder.path("new")
    assert folder.read("new") == b"old"
    assert folder.list() == ["new"]


def test_a_file_replaced_while_it_is_read_is_the_old_or_the_new_one(server: Server, proxy: FaultProxy) -> None:
    short, long = b"{}", b'{"is": "longer"}'
    direct, folder = server.folder("torn"), proxy.folder("torn")
    direct.put_whole("x", short)

    def replace(method: str, target: str) -> str:
        if method == "GET":
            proxy.plan = healthy
            direct.put_whole("x", long)
        return ""

    proxy.plan = replace
    assert folder.read("x") == long
    assert proxy.plan is healthy


def test_what_lasts_ends(proxy: FaultProxy) -> None:
    store, root = connect(proxy.folder("").uri, retries=2, silence_s=1)
    write_whole(store, f"{root}/lasting", b"1")
    for fault in (SLOW_DOWN, RESET, SILENT):
        proxy.plan = times(inf, fault)
        proxy.faults.clear()
        with pytest.raises(OSError, match="AWS Error"):
            read_whole(store, f"{root}/lasting")
        assert proxy.faults == {fault: 3}


def test_a_reader_of_parquet_does_not_notice_either(proxy: FaultProxy) -> None:
    """Though what it asks for is shorter than the text of an error."""
    folder, table = proxy.folder("parquet"), pa.table({"id": ["a", "b"], "label": ["c", "d"]})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    folder.put_whole("x.parquet", stream.getvalue())
    filesystem, root = pickle.loads(pickle.dumps(folder.filesystem()))  # noqa: S301 - its own
    proxy.plan = sometimes(0.5, seed=2, faults=[SLOW_DOWN, INTERNAL, CUT])
    assert pq.read_table(f"{root}/x.parquet", filesystem=filesystem) == table
    with filesystem.open_input_file(f"{root}/x.parquet") as file:
        for column in table.column_names:
            assert pq.ParquetFile(file).read([column]) == table.select([column])
    assert proxy.faults.total() >= 5


@pytest.mark.parametrize("fault", [LOST, RESET, SLOW_DOWN])
def test_a_lease_that_was_not_confirmed_is_still_one_lease(proxy: FaultProxy, fault: str) -> None:
    folder = proxy.folder(f"unconfirmed-{fault}")
    proxy.plan = times(2, fault, **LANDS)
    with hold(folder) as lease:
        lease.fence.check()
        assert folder.list("lease") == ["1.json"]
        with pytest.raises(RunHeldError, match="is writing this folder"), hold(folder):
            pass
    with hold(folder) as later:
        assert later.fence.number == 2
    assert proxy.faults == {fault: 2}


def test_a_lease_taken_unknowingly_holds_until_it_expires(proxy: FaultProxy) -> None:
    """Its holder has failed, and nobody else has it: better none than two."""
    folder, clock = proxy.folder("unknowing"), Clock()
    proxy.plan = times(1, DISOWNED, **LANDS)
    with pytest.raises(StorageError, match="cannot write here"), hold(folder, clock=clock, ttl_s=30):
        pass
    clock.now += 29
    with pytest.raises(RunHeldError), hold(folder, clock=clock):
        pass
    clock.now += 2
    with hold(folder, clock=clock) as lease:
        lease.fence.check()


def test_a_lease_that_lands_late_fences_off_whoever_has_its_number(proxy: FaultProxy) -> None:
    """Its writer has given up long since, but the other cannot know that."""
    folder = proxy.folder("late")
    proxy.plan = times(1, HELD, **LANDS)
    with pytest.raises(StorageError, match="cannot write here"), hold(folder):
        pass
    with hold(folder) as lease:
        lease.fence.check()
        proxy.release()
        with pytest.raises(RunHeldError, match="has taken over"):
            lease.fence.check()


def test_of_two_that_take_a_lease_at_once_one_has_it(server: Server, proxy: FaultProxy) -> None:
    direct, folder = server.folder("at-once"), proxy.folder("at-once")
    first: list[Fence] = []
    with ExitStack() as stack:

        def be_faster(method: str, target: str) -> str:
            if method == "PUT" and not first:
                first.append(stack.enter_context(hold(direct)).fence)
                first[0].check()
            return ""

        proxy.plan = be_faster
        with hold(folder) as second:
            assert second.fence.number == first[0].number
            second.fence.check()
            with pytest.raises(RunHeldError, match="has taken over"):
                first[0].check()


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "limit_s"), [(SLOW_DOWN, 30), (RESET, 30), (SILENT, 140)])
def test_what_lasts_is_told_with_the_place_and_within_its_time(proxy: FaultProxy, fault: str, limit_s: float) -> None:
    folder = proxy.folder("gone")
    proxy.plan = times(inf, fault)
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot write here") as caught:
        folder.put_whole("x", b"1")
    assert caught.value.where == folder.path("x")
    assert 25 < time.monotonic() - began < limit_s


@pytest.mark.soak
def test_a_server_that_has_gone_is_told_with_the_place(server: Server) -> None:
    with s3_server() as other:
        folder = other.folder("gone")
        folder.put_whole("x", b"1")
        other.process.kill()
        other.process.wait()
        with pytest.raises(StorageError, match=r"cannot write here.*[Cc]onnect") as caught:
            folder.put_whole("x", b"2")
    assert "s3://bucket/gone/x" in (caught.value.where or "")
