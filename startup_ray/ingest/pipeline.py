"""Ingest on Ray: the manifest cut into chunks, the chunks fetched by a pool of actors, the seal, `dataset.json`.

    with connect(), hold(folder) as lease:
        dataset = ingest(job.ingest, folder, lease.fence)

Only names of chunks and small tallies cross Ray's object store; bodies and images stay inside the actor that
fetches them. Killed at any point and run again, it fetches only what was not committed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from startup_ray.dataset import Dataset, write_dataset
from startup_ray.errors import StorageError
from startup_ray.forgotten import read_forgotten
from startup_ray.ingest.chunks import items_per_chunk, read_part
from startup_ray.ingest.credentials import read_headers
from startup_ray.ingest.forget import FORGETTING, erase
from startup_ray.ingest.plan import Plan, plan_manifest
from startup_ray.ingest.pool import fetch_chunks
from startup_ray.ingest.seal import Sealed, clear_spool, seal
from startup_ray.ingest.source import open_source
from startup_ray.ingest.work import Tally, Task
from startup_ray.job import IngestOptions
from startup_ray.lease import Fence
from startup_ray.ledger import LOST, NOT_FAILED, NOTHING, Again, check_law, redact
from startup_ray.manifest import manifest_digest
from startup_ray.progress import ignore
from startup_ray.remote import run_task
from startup_ray.runs import DATASET, location_of
from startup_ray.sources import sources_of
from startup_ray.storage import Folder

log = logging.getLogger("startup_ray")

ROUNDS = 10
"""Fetch and seal at most so often; a second round is needed only after the manifest has changed."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an ingest is, in items."""

    total: int
    done: int
    ok: int
    """Of `done`, those that are no failure; a duplicate is found later and is none."""
    failed: int
    rate: float
    """Items per second since this process began to fetch."""

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.done:,} of {self.total:,} items, {self.failed:,} failed, {self.rate:,.0f} items/s"


def ingest(
    options: IngestOptions,
    folder: Folder,
    fence: Fence,
    *,
    again: Again = NOTHING,
    on_progress: Callable[[Progress], None] = ignore,
    chunk_items: int | None = None,
) -> Dataset:
    """Fetch what a manifest lists into a dataset; run again after a kill it goes on where it was.

    Args:
        again: which outcomes of a former ingest do not stand.
        on_progress: called in this thread and in another, one at a time.
        chunk_items: most rows of a commit, `items_per_chunk` by default.

    Raises:
        ManifestError: the manifest cannot be read.
        UsageError: STARTUP_RAY_HEADERS cannot be read.
        RunHeldError: another process has taken over the folder.
        StorageError, ClusterError: storage or Ray failed.
    """
    size = chunk_items or items_per_chunk(options.image)
    with _spooling(folder, fence), open_source(options.manifest) as source:
        task = Task(
            options=options,
            folder=folder,
            fence=fence,
            endpoints=source.endpoints,
            headers=read_headers(os.environ),
            sources=sources_of(options, location_of(options.manifest)),
        )
        for _ in range(ROUNDS):
            forgotten = read_forgotten(folder)
            erase(folder, forgotten, fence)
            sealed, digest = _once(replace(task, forgotten=forgotten), source.location, size, again, on_progress)
            again = Again((LOST,))
            if sealed.lost or read_forgotten(folder) != forgotten:  # the list may have grown meanwhile
                continue
            check_law(sealed.counts, sealed.items)
            # A sample's own bytes hold its port, another one each time.
            digest = manifest_digest(options.manifest) if source.endpoints else digest
            dataset = _describe(sealed, options, folder, digest)
            fence.check()
            write_dataset(dataset)
            # Once more: who made it grow in between has found no dataset here, and does not look again.
            if read_forgotten(folder) == forgotten:
                return dataset
        raise StorageError("the dataset does not settle", where=str(folder), hint="run the command again")


def _once(
    task: Task, location: str, size: int, again: Again, on_progress: Callable[[Progress], None]
) -> tuple[Sealed, str]:
    """Plan, fetch and seal; what the seal has found, and the manifest's digest.

    The first and the last in a process of their own: memory that grows with the manifest is not the driver's.
    """
    options, folder, fence = task.options, task.folder, task.fence
    wanted = (location, options, task.sources, folder, folder, size, again)
    plan, digest = run_task(plan_manifest, *wanted, stage="ingest", here=True)
    fence.check()  # a long manifest may have outlived the lease
    folder.delete(DATASET)  # from here on the folder is no dataset, until it is one again
    folder.delete(FORGETTING)
    counter = _Counter(plan, folder, on_progress)
    for tally in fetch_chunks(task, plan.todo, counter.hear):
        counter.add(tally)
    alike = options.image if options.split.group else None
    sealed: Sealed = run_task(seal, folder, list(plan.chunks), fence, alike, stage="ingest")
    return sealed, digest


@contextmanager
def _spooling(folder: Folder, fence: Fence) -> Iterator[None]:
    """No URL that is still to be fetched, secrets and all, outlives an ingest that ends, or the next after a kill."""
    fence.check()
    clear_spool(folder)
    try:
        yield
    except BaseException:
        with suppress(StorageError):  # of another owner by now, or out of reach
            fence.check()
            clear_spool(folder)
        raise
    fence.check()
    clear_spool(folder)


def _describe(sealed: Sealed, options: IngestOptions, folder: Folder, digest: str) -> Dataset:
    return Dataset(
        folder=folder,
        image_shape=options.image.shape,
        manifest=redact(location_of(options.manifest)),
        manifest_digest=digest,
        image=options.image,
        group=options.split.group,
        **sealed.facts(),
    )


class _Counter:
    """Tallies of chunks -> progress. A chunk's newest tally counts, so one that is done again counts once."""

    def __init__(self, plan: Plan, folder: Folder, on_progress: Callable[[Progress], None]) -> None:
        before = [_tally(folder, name) for name in sorted(plan.chunks.keys() - set(plan.todo))]
        self._newest: dict[str, Tally] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()
        self._total = sum(plan.chunks.values())
        self._first = self._done = sum(tally.done for tally in before)
        self._ok = sum(tally.ok for tally in before)
        self._began = time.monotonic()
        self._on_progress = on_progress
        log.info("ingest: %d items, %d of them done before", self._total, self._done + plan.kept)
        self._tell()

    def add(self, tally: Tally) -> None:
        """The last tally of a chunk."""
        with self._lock:
            self._ended.add(tally.chunk)
            self._take(tally)

    def hear(self, tally: Tally) -> None:
        """A tally that may come late, after the last."""
        with self._lock:
            if tally.chunk not in self._ended:
                self._take(tally)

    def _take(self, tally: Tally) -> None:
        known = self._newest.get(tally.chunk, Tally(chunk=tally.chunk, done=0, ok=0))
        self._newest[tally.chunk] = tally
        self._done += tally.done - known.done
        self._ok += tally.ok - known.ok
        self._tell()

    def _tell(self) -> None:
        rate = (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)
        failed = self._done - self._ok
        self._on_progress(Progress(total=self._total, done=self._done, ok=self._ok, failed=failed, rate=rate))


def _tally(folder: Folder, name: str) -> Tally:
    statuses = read_part(folder, name, ["status"]).table["status"].to_pylist()
    return Tally(chunk=name, done=len(statuses), ok=sum(status in NOT_FAILED for status in statuses))
