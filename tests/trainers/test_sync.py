"""What workers agree about, by the real transport, with workers that are threads."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from startup_ray.errors import StorageError

pytestmark = pytest.mark.ray


def each(world: int, act: Callable[[Any], Any]) -> list[Any]:
    """What `act` returns, or raises, in each of some workers that are connected."""
    from startup_ray.trainers.sync import connect

    token = f"memory:{uuid.uuid4().hex}"

    def one(rank: int) -> Any:
        sync = connect(world=world, rank=rank, transport=token, timeout_s=30)
        try:
            return act(sync)
        except StorageError as error:
            return error
        finally:
            sync.close()

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


@pytest.mark.parametrize("source", [0, 2])
def test_bytes_of_one_reach_all(source: int) -> None:
    payload = bytes(range(256)) + b"\x80" * 5
    assert each(3, lambda sync: sync.broadcast(payload if sync.rank == source else b"other", source)) == [payload] * 3
    assert each(2, lambda sync: sync.broadcast(b"")) == [b""] * 2


def test_rows_are_gathered_in_the_order_of_ranks() -> None:
    for table in each(3, lambda sync: sync.gather(np.array([sync.rank, 7]))):
        assert table.tolist() == [[0, 7], [1, 7], [2, 7]]


def test_what_one_meets_all_meet() -> None:
    def act(sync: Any) -> int:
        if sync.rank == 1:
            raise StorageError("a shard is damaged", where="x.parquet")
        return int(sync.rank)

    found = each(3, lambda sync: sync.agree(lambda: act(sync)))
    assert [str(error) for error in found] == ["x.parquet: a shard is damaged"] * 3
    assert each(2, lambda sync: sync.agree(lambda: sync.rank)) == [0, 1]


def test_rank_0_alone_acts_and_all_hear_of_its_error() -> None:
    acted: list[int] = []

    def act(rank: int) -> None:
        acted.append(rank)
        raise StorageError("full")

    found = each(2, lambda sync: sync.on_rank_0(lambda: act(sync.rank)))
    assert [error.message for error in found] == ["full", "full"]
    assert acted == [0]
    assert each(2, lambda sync: sync.on_rank_0(lambda: 5)) == [5, None]


def test_digests_that_differ_are_seen_by_all() -> None:
    same = each(2, lambda sync: sync.all_equal("sha256:" + "ab" * 32))
    other = each(2, lambda sync: sync.all_equal("sha256:" + f"{sync.rank:02x}" * 32))
    assert (same, other) == ([True, True], [False, False])


def test_one_that_leaves_is_noticed_at_once() -> None:
    from startup_ray.trainers.neighbours import NeighbourLostError

    def act(sync: Any) -> str:
        if sync.rank == 1:
            return "left"
        with pytest.raises(NeighbourLostError, match="worker 1 has died"):
            sync.gather(np.array([1]))
        return "noticed"

    assert each(2, act) == ["noticed", "left"]
