"""What a fetch actor hands to Ray Data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from startup_ray.errors import StorageError
from startup_ray.ingest.chunks import spool
from startup_ray.ingest.pool import _Actor, is_bound_here
from startup_ray.ingest.work import Tally, Task
from startup_ray.items import BadRow, Item
from startup_ray.job import IngestOptions
from startup_ray.lease import hold
from startup_ray.remote import raise_packed
from startup_ray.sources import Root, Sources
from startup_ray.storage import Folder


class Slow:
    """A worker that tells its progress some times, and may fail after that."""

    def __init__(self, times: int, fails: bool = False) -> None:
        self.times, self.fails = times, fails

    def process(self, name: str) -> Iterator[Tally]:
        for done in range(1, self.times + 1):
            yield Tally(chunk=name, done=done, ok=0)
        if self.fails:
            raise StorageError("full")

    def close(self) -> None:
        pass


def call(worker: Any) -> tuple[pa.Table, list[Tally]]:
    actor, told = _Actor.__new__(_Actor), list[Tally]()
    actor._worker, actor._tell = worker, told.append
    return actor(pa.table({"chunk": ["000001-a"]})), told


def test_a_call_has_one_row_however_often_it_tells_how_far_it_is() -> None:
    """A call that is begun anew on another host is faster or slower than the one that was lost."""
    for times in (1, 2, 7):
        table, told = call(Slow(times))
        assert table.to_pylist() == [{"chunk": "000001-a", "done": times, "ok": 0, "error": None}]
        assert [tally.done for tally in told] == list(range(1, times + 1))


def test_an_error_takes_the_place_of_the_row() -> None:
    table, told = call(Slow(3, fails=True))
    assert (table.num_rows, len(told)) == (1, 3)
    with pytest.raises(StorageError, match="full"):
        raise_packed(table["error"][0].as_py())


@pytest.mark.parametrize(
    ("url", "roots", "is_bound"),
    [
        ("file:///data/a.jpg", (Root("/data"),), True),
        ("http://e.com/a.jpg", (Root("/data"),), False),
        ("s3://bucket/a.jpg", (Root("s3://bucket"),), False),
    ],
)
def test_files_are_read_on_the_node_that_the_command_runs_on(
    tmp_path: Path, url: str, roots: tuple[Root, ...], is_bound: bool
) -> None:
    """Another may have none, or others, at the same path."""
    folder = Folder(str(tmp_path))
    bad = BadRow(position=0, id="0", url="file:///etc/passwd", status="blocked_scheme", reason="no")
    names = spool([bad, Item(position=1, id="1", url=url)], folder, 10, ())
    with hold(folder) as lease:
        options = IngestOptions(manifest="m.csv")
        task = Task(options=options, folder=folder, fence=lease.fence, sources=Sources(roots=roots))
        assert is_bound_here(task, list(names)) == is_bound
