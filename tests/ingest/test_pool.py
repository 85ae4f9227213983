"""What a fetch actor hands to Ray Data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from startup_ray.errors import StorageError
from startup_ray.ingest.pool import _Actor
from startup_ray.ingest.work import Tally
from startup_ray.remote import raise_packed


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
