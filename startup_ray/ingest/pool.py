"""The pool of fetch actors on Ray Data.

Ray Data hands chunk names to actors that each own one `Worker`; images are written inside the actor and never
cross the object store. Calls run as threads of the actor and share its session and its bounds.

A call yields one block, whatever becomes of the chunk, and its progress goes another way. Ray begins the call of an
actor that is lost anew, and goes on with its blocks where those of the lost one ended: if there are fewer now, Ray Data
2.60 stops with an AssertionError (`on_data_ready`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, cast

import pyarrow as pa

from startup_ray.errors import ClusterError, StartupRayError
from startup_ray.growth import grow
from startup_ray.ingest.broker import asker, start_broker
from startup_ray.ingest.chunks import names_files
from startup_ray.ingest.work import Tally, Task, Worker
from startup_ray.reach import find_limits
from startup_ray.remote import listening, pack_error, quiet_data, raise_packed, told_as_ours

ACTOR_CPUS = 0.5
"""Half a CPU for an actor that waits for the network most of the time leaves room for what else must run."""
CHUNKS_AT_ONCE = 3
"""Chunks that one actor works on together, so that a slow item at the end of one leaves nothing idle."""

_TALLY = pa.schema([("chunk", pa.string()), ("done", pa.int64()), ("ok", pa.int64()), ("error", pa.binary())])


class _Actor:
    """A worker in the shape that Ray Data calls: the name of a chunk in, its last tally out."""

    def __init__(self, task: Task, tell: Callable[[Tally], None]) -> None:
        self._worker = Worker(task, asker(task.options.fetch))
        self._tell = tell
        gc.freeze()  # what is loaded by now stays: no collection needs to look at it again

    def __del__(self) -> None:  # Ray Data's word that the pool ends
        with suppress(AttributeError):  # it never began
            self._worker.close()

    def __call__(self, batch: pa.Table) -> pa.Table:
        (name,) = batch["chunk"].to_pylist()
        row: dict[str, Any] = {}
        try:
            for tally in self._worker.process(name):
                self._tell(tally)
                row = asdict(tally)
        except StartupRayError as error:
            row = {"error": pack_error(error)}
        return pa.Table.from_pylist([row], schema=_TALLY)


def fetch_chunks(task: Task, names: Sequence[str], hear: Callable[[Tally], None]) -> Iterator[Tally]:
    """Have every named chunk committed by a pool of actors, and yield the last tally of each.

    Args:
        hear: called now and then, in a thread, with how far a chunk is.

    Raises:
        StorageError, RunHeldError: as a worker raised it.
        ClusterError: Ray gave up, or has no CPU for an actor.
    """
    if not names:
        return
    import ray.data

    node = ray.get_runtime_context().get_node_id() if is_bound_here(task, names) else ""
    if not node and not _has_room(ray.nodes()) and (limits := find_limits()):
        grow({"CPU": 1.0}, 1, limits, asker="ingest")
    pool = ray.data.ActorPoolStrategy(
        size=min(pool_size(ray.nodes(), node), -(-len(names) // CHUNKS_AT_ONCE)),
        max_concurrent_calls_per_actor=CHUNKS_AT_ONCE,
        max_tasks_in_flight_per_actor=2 * CHUNKS_AT_ONCE,
        enable_true_multi_threading=True,
    )
    broker = start_broker(task.options.fetch)
    with told_as_ours("ingest"), quiet_data(), listening(hear) as tell:
        # One block a chunk, because a block is what an actor is handed at a time.
        chunks = ray.data.from_items([{"chunk": name} for name in names], override_num_blocks=len(names))
        tallies = chunks.map_batches(
            _Actor,
            fn_constructor_args=(task, tell),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=ACTOR_CPUS,
            label_selector={"ray.io/node-id": node} if node else None,
        )
        for batch in tallies.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in cast("pa.Table", batch).to_pylist():
                raise_packed(row.pop("error"))
                yield Tally(**row)
    del broker  # an actor lives as long as somebody holds it


def is_bound_here(task: Task, names: Sequence[str]) -> bool:
    """Whether only this node can do it: it alone reaches its own loopback, and maybe its own files."""
    return bool(task.endpoints) or (task.sources.is_local and any(names_files(task.folder, name) for name in names))


def pool_size(nodes: Sequence[dict[str, Any]], node: str) -> int:
    """Whole CPUs of one node of `ray.nodes()`, or of all with an empty `node`; at least 1.

    Raises:
        ClusterError: an actor fits nowhere; Ray would wait for ever without a word.
    """
    found = [place for place in nodes if place["Alive"] and node in ("", place["NodeID"])]
    if not _has_room(found):
        place = "this node (whose own sample or files are fetched)" if node else "any node of the cluster"
        raise ClusterError(
            f"a fetch actor needs {ACTOR_CPUS} CPUs, and {place} has less",
            hint="give Ray more CPUs, or run the command from a node that has some",
        )
    return max(int(sum(map(_cpus, found))), 1)


def _has_room(nodes: Sequence[dict[str, Any]]) -> bool:
    """Whether an actor fits on one of them."""
    return any(place["Alive"] and _cpus(place) >= ACTOR_CPUS for place in nodes)


def _cpus(node: dict[str, Any]) -> float:
    return float(node["Resources"].get("CPU", 0.0))
