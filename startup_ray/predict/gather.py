"""Images to be labelled -> commits in a folder, as an ingest leaves them: `ledger/*.parquet` and `images/*.parquet`.

source = open_targets(["photos"])            # or ["https://example.com/list.json"]
gather(source, options, folder, on_progress)

A manifest is fetched by the worker of an ingest, in this process: one worker holds all limits per host by itself,
so no Ray is needed to share them. No seal follows: an image that stands twice gets its label twice.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from startup_ray.errors import UsageError
from startup_ray.ingest.chunks import commit, items_per_chunk, spool
from startup_ray.ingest.credentials import read_headers
from startup_ray.ingest.finish import finish
from startup_ray.ingest.source import open_source
from startup_ray.ingest.work import Tally, Task, Worker
from startup_ray.items import BadRow, Item
from startup_ray.job import IngestOptions
from startup_ray.lease import hold
from startup_ray.ledger import REPEATED_ID, Outcome
from startup_ray.manifest import is_manifest, open_manifest, require_manifest
from startup_ray.predict.files import Found, find_files, read_file
from startup_ray.progress import Progress
from startup_ray.runs import location_of
from startup_ray.sources import sources_of
from startup_ray.storage import Folder

SPLIT = "test"
CHUNKS_AT_ONCE = 3
"""So that a slow item at the end of one chunk leaves nothing idle."""


@dataclass(frozen=True)
class Gathered:
    """Items that have ended, of how many."""

    done: int
    total: int

    @property
    def text(self) -> str:
        return f"{self.done:,} of {self.total:,} items"


def open_targets(targets: Sequence[str]) -> str | list[Found]:
    """The location of one manifest, or the files at paths and in folders.

    Raises:
        UsageError: nothing is at a path, or a manifest does not stand alone.
        ManifestError: there is no such manifest.
    """
    lists = [target for target in targets if is_manifest(target) and not Path(target).is_dir()]
    if lists and len(targets) > 1:
        raise UsageError("a manifest stands alone", where=lists[0], hint="label other images in a command of their own")
    if not lists:
        return find_files(targets)
    require_manifest(lists[0])
    return lists[0]


def gather(
    source: str | list[Found], options: IngestOptions, folder: Folder, on_progress: Callable[[Progress], None]
) -> None:
    """Fetch or read, decode and commit every item of what `open_targets` gave.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    if isinstance(source, str):
        _gather_manifest(source, options, folder, on_progress)
    else:
        _gather_files(source, options, folder, on_progress)


def _gather_manifest(
    location: str, options: IngestOptions, folder: Folder, on_progress: Callable[[Progress], None]
) -> None:
    with open_source(location) as source, hold(folder) as lease:
        sources = sources_of(options, location_of(location))
        columns = options.columns.model_copy(update={"label": None, "split": None, "blur": None})  # as new images have
        with open_manifest(source.location, columns, sources.judge) as manifest:
            chunks = spool(_unlabelled(manifest.rows()), folder, items_per_chunk(options.image), ())
        worker = Worker(
            Task(
                options=options,
                folder=folder,
                fence=lease.fence,
                endpoints=source.endpoints,
                headers=read_headers(os.environ),
                sources=sources,
            )
        )
        done, total = dict.fromkeys(chunks, 0), sum(chunks.values())
        try:
            for tally in _process(worker, list(chunks)):
                done[tally.chunk] = tally.done
                on_progress(Gathered(sum(done.values()), total))
        finally:
            worker.close()


def _unlabelled(rows: Iterable[Item | BadRow]) -> Iterator[Item | BadRow]:
    """Rows as they are to be fetched: all in one split, and of those with the same id only the first, as in an ingest.

    Memory grows with the ids.
    """
    owners: dict[str, int] = {}
    for row in rows:
        owner = owners.setdefault(row.id, row.position) if row.id else row.position
        if not isinstance(row, Item):
            yield row
        elif owner < row.position:
            reason = f"{REPEATED_ID}{owner}"
            yield BadRow(position=row.position, id=row.id, url="", status="bad_item", reason=reason)
        else:
            yield replace(row, label=None, split=SPLIT)


def _process(worker: Worker, chunks: Sequence[str]) -> Iterator[Tally]:
    """Have chunks committed, some at once; in threads that an interrupt does not wait for."""
    todo: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    told: queue.SimpleQueue[Tally | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for name in iter(todo.get, None):
                for tally in worker.process(name):
                    told.put(tally)
            told.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            told.put(error)

    for name in [*chunks, *[None] * CHUNKS_AT_ONCE]:
        todo.put(name)
    for _ in range(CHUNKS_AT_ONCE):
        threading.Thread(target=work, daemon=True, name="chunk").start()
    running = CHUNKS_AT_ONCE
    while running:
        found = told.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            running -= 1
        else:
            yield found


def _gather_files(
    found: Sequence[Found], options: IngestOptions, folder: Folder, on_progress: Callable[[Progress], None]
) -> None:
    items = (Item(position=i, id=file.id, url="") for i, file in enumerate(found))
    rows = list(_unlabelled(items))  # two names that are no text may read the same

    def read(row: Item | BadRow) -> tuple[Outcome, dict[str, object] | None]:
        if isinstance(row, BadRow):
            return Outcome(id=row.id, url="", status=row.status, reason=row.reason), None
        return finish(row, read_file(found[row.position], options.fetch.max_bytes), options)

    size, done = items_per_chunk(options.image), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders work without the GIL
        for start in range(0, len(rows), size):
            ended = []
            for pair in pool.map(read, rows[start : start + size]):
                ended.append(pair)
                done += 1
                on_progress(Gathered(done, len(rows)))
            images = [image for _, image in ended if image is not None]
            commit(folder, f"{start:012d}", [outcome for outcome, _ in ended], images)
