"""One worker's share of an ingest: chunks to commits. It owns an event loop in a thread, and decodes outside it.

    worker = Worker(task)
    for tally in worker.process("000003-5f3a..."):      # may be called from several threads at once
        ...                                             # Tally(chunk, done, ok), growing; the last after the commit
    worker.close()

Several chunks at once share one session and its bounds, so that a slow host at the end of one chunk does not
leave the line idle. A body that waits to be decoded counts as an open request: decoding holds back fetching.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from startup_ray.errors import ClusterError
from startup_ray.forgotten import NOTHING, Forgotten
from startup_ray.ingest.bodies import Bodies
from startup_ray.ingest.chunks import commit, count_try, forget_tries, read_spool
from startup_ray.ingest.credentials import NONE, Headers
from startup_ray.ingest.fetch import Fetched, Fetcher
from startup_ray.ingest.finish import finish, one_line
from startup_ray.ingest.former import recall
from startup_ray.ingest.guard import Guard
from startup_ray.ingest.hosts import HostLimits
from startup_ray.ingest.shares import Ask
from startup_ray.items import BadRow, Item
from startup_ray.job import IngestOptions
from startup_ray.lease import Fence
from startup_ray.ledger import NOT_FAILED, Outcome
from startup_ray.sources import NO_SOURCES, Sources, is_place
from startup_ray.storage import Folder

TELL_EVERY_S = 0.5
MAX_TRIES = 4
"""Of a chunk whose process dies. Ray Data tries for ever, and so would an image that kills what decodes it."""
CLOSE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every worker of an ingest is told; it pickles."""

    options: IngestOptions
    folder: Folder
    fence: Fence
    endpoints: tuple[tuple[str, int], ...] = ()
    """(address, port) pairs that may be fetched from although they are not public."""
    headers: Headers = NONE
    """Of single origins, tokens above all."""
    sources: Sources = NO_SOURCES
    """What may be read besides http(s)."""
    forgotten: Forgotten = NOTHING
    """Bodies that are not kept."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How far a chunk is."""

    chunk: str
    done: int
    ok: int


class Worker:
    """Fetches, decodes and commits chunks until it is closed.

    Args:
        ask: leads to the limits per host; by default they are this worker's own.
    """

    def __init__(self, task: Task, ask: Ask | None = None) -> None:
        self._task = task
        self._ask = ask
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="fetch")
        self._thread.start()
        # Room is for what waits to be decoded, wherever it comes from.
        self._room = asyncio.Semaphore(task.options.fetch.concurrency)
        self._bodies = Bodies(task.options.fetch, task.sources, self._room, column=task.options.columns.image or "")
        self._fetcher: Fetcher = self._submit(self._open()).result()

    def process(self, name: str) -> Iterator[Tally]:
        """Commit one chunk, telling now and then how far it is.

        Raises:
            RunHeldError: another process has taken over the folder.
            StorageError: the commit cannot be written.
            ClusterError: the process has died MAX_TRIES times at this chunk.
        """
        spooled = read_spool(self._task.folder, name)
        rows = [one.row for one in spooled]
        if count_try(self._task.folder, name) > MAX_TRIES:
            raise ClusterError(
                f"the fetch actor died {MAX_TRIES} times at rows {rows[0].position} to {rows[-1].position}",
                where=self._task.options.manifest,
                hint="run it again; if it stops there again, lower ingest.fetch.max_pixels or give it more memory",
            )
        outcomes, images = recall(self._task.folder, spooled, self._task.options.split)
        outcomes |= {i: _refused(row) for i, row in enumerate(rows) if isinstance(row, BadRow)}
        ok, told = sum(outcome.status in NOT_FAILED for outcome in outcomes.values()), time.monotonic()
        urls = {i: row.url for i, row in enumerate(rows) if i not in outcomes}
        with closing(self._fetch(urls)) as arrivals:
            for i, fetched in arrivals:
                outcomes[i], image = self._finish(rows[i], fetched, spooled[i].attempts)
                ok += outcomes[i].status in NOT_FAILED
                if image is not None:
                    images[i] = image
                if time.monotonic() - told > TELL_EVERY_S:
                    told = time.monotonic()
                    yield Tally(chunk=name, done=len(outcomes), ok=ok)
        self._task.fence.check()
        commit(self._task.folder, name, [outcomes[i] for i in sorted(outcomes)], [images[i] for i in sorted(images)])
        forget_tries(self._task.folder, name)
        yield Tally(chunk=name, done=len(outcomes), ok=ok)

    def close(self) -> None:
        """Close the session and end the threads."""
        with suppress(TimeoutError):  # a process that ends waits for no broker that has ended before it
            self._submit(self._fetcher.__aexit__(None, None, None)).result(CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._bodies.close()

    async def _open(self) -> Fetcher:
        fetch, endpoints = self._task.options.fetch, self._task.endpoints
        limits = HostLimits(self._ask, max_open=fetch.concurrency) if self._ask else None
        guard = Guard(fetch.allow_private, endpoints)
        fetcher = Fetcher(fetch, guard, limits=limits, headers=self._task.headers, room=self._room)
        return await fetcher.__aenter__()

    def _submit(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _fetch(self, urls: Mapping[int, str]) -> Generator[tuple[int, Fetched], None, None]:
        """Index and end of each URL, as they arrive; a body keeps its room until those that came with it are done with.

        Closed before its end it gives back the room of every body that is still to come.
        """
        arrived: queue.SimpleQueue[list[tuple[int, Fetched]] | None] = queue.SimpleQueue()
        ready: list[tuple[int, Fetched]] = []

        def hand_over() -> None:
            arrived.put(ready.copy())
            ready.clear()

        async def fetch_one(index: int, url: str) -> None:
            fetch = self._bodies.read if is_place(url) else self._fetcher.fetch
            ready.append((index, await fetch(url)))
            if len(ready) == 1:  # what ends in the same turn of the loop wakes the decoding thread once
                self._loop.call_soon(hand_over)

        async def fetch_all() -> None:
            async with asyncio.TaskGroup() as group:
                for index, url in urls.items():
                    group.create_task(fetch_one(index, url))

        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(fetch_all())
            task.add_done_callback(lambda _: arrived.put(None))  # last, however the task ends
            return task

        everything: asyncio.Task[None] = self._submit(start()).result()
        try:
            for batch in iter(arrived.get, None):
                try:
                    yield from batch
                finally:
                    self._release(batch)
        except BaseException:
            self._loop.call_soon_threadsafe(everything.cancel)
            for batch in iter(arrived.get, None):
                self._release(batch)
            raise
        try:
            everything.result()
        except BaseExceptionGroup as group:  # the limits per host cannot be asked for, or a fault of ours
            raise group.exceptions[0] from group

    def _release(self, batch: Sequence[tuple[int, Fetched]]) -> None:
        def release() -> None:
            for _, fetched in batch:
                self._fetcher.release(fetched)

        self._loop.call_soon_threadsafe(release)

    def _finish(self, row: Item | BadRow, fetched: Fetched, attempts: int) -> tuple[Outcome, dict[str, Any] | None]:
        assert isinstance(row, Item)
        return finish(row, fetched, self._task.options, attempts, self._task.forgotten)


def _refused(row: BadRow) -> Outcome:
    return Outcome(id=row.id, url=row.url, status=row.status, reason=one_line(row.reason))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
