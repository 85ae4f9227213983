"""Bodies that come by no request of HTTP: files, objects of stores, rows of Parquet files; a failure is a value.

    bodies = Bodies(options, sources, room)
    fetched = await bodies.read("file:///data/cats/1.jpg")
    ...                                # decode fetched.body
    room.release()                     # where there is one, as `Fetcher.release` does
    bodies.close()

What may be read is judged once more as it is opened, without links. Threads do the reading, THREADS at once, since
neither file systems nor pyarrow know how to wait without one; nobody holds room for a body while he waits for a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import pyarrow as pa

from startup_ray.errors import first_line
from startup_ray.ingest.embedded import Embedded
from startup_ray.ingest.exchange import Fetched
from startup_ray.ingest.persist import persist
from startup_ray.job import FetchOptions
from startup_ray.manifests.trees import open_regular
from startup_ray.sources import Place, Sources, place_of
from startup_ray.storage import Folder

THREADS = 16
"""An object store takes its time for each object, and serves many at once."""
PIECE_BYTES = 2**23
"""Of one read; between two the time is looked at."""

_WORD = re.compile(r"(?<=AWS Error )[A-Z_]+|(?<=cloud::Status\()[A-Z_]+|HTTP status \d+")
"""What pyarrow says of a store's answer, within a text that holds much else."""
_AGAIN = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT"  # of AWS' SDK
    r"|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED"  # of gRPC
    r"|HTTP status (408|429|5\d\d)"
)
"""Those of these words after which another attempt may end better."""


class Bodies:
    """Use it in one event loop.

    Args:
        room: for bodies in hand, shared with a Fetcher; whoever is done with a body gives its room back.
        column: of embedded images.
    """

    def __init__(
        self,
        options: FetchOptions,
        sources: Sources,
        room: asyncio.Semaphore,
        *,
        column: str = "image",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._options = options
        self._sources = sources
        self._room = room
        self._sleep = sleep
        self._uniform = uniform
        self._embedded = Embedded(column)
        self._slots = asyncio.Semaphore(THREADS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bodies")
        self._turns: WeakValueDictionary[tuple[str, int | None], asyncio.Lock] = WeakValueDictionary()

    async def read(self, url: str) -> Fetched:
        """The body at a `sources.Place`. One that is ok takes up room until that is given back."""
        try:
            place = place_of(url)
        except ValueError as error:
            return Fetched(status="bad_url", reason=first_line(error))
        attempt = self._attempt if place.row is None else self._attempt_in_turn
        return await persist(lambda: attempt(place), self._options.retries, sleep=self._sleep, uniform=self._uniform)

    def close(self) -> None:
        """Close the files of embedded images, and end the threads."""
        self._threads.shutdown(cancel_futures=True)
        self._embedded.close()

    async def _attempt_in_turn(self, place: Place) -> Fetched:
        """Rows of one row group one after the other, as they were asked for, which is what `Embedded` is made for."""
        turn = self._turns.setdefault((place.name, place.group), asyncio.Lock())
        async with turn:
            return await self._attempt(place)

    async def _attempt(self, place: Place) -> Fetched:
        fetched = Fetched(status="unreadable")
        async with self._slots:
            await self._room.acquire()
            try:
                fetched = await asyncio.get_running_loop().run_in_executor(self._threads, self._read, place)
            finally:
                if fetched.body is None:
                    self._room.release()
        return fetched

    def _read(self, place: Place) -> Fetched:
        began = time.monotonic()
        try:
            if place.group is not None and place.row is not None:
                body = self._embedded.read(lambda: self._open(place), place.name, place.group, place.row)
                fetched = self._bounded(body, len(body))
            else:
                with self._open(place) as stream:
                    fetched = self._read_whole(stream, began + self._options.timeout_s)
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            fetched = failure_of(error)
        return replace(fetched, attempts=1, elapsed_s=time.monotonic() - began)

    def _open(self, place: Place) -> Any:
        """The file or object, for reading.

        Raises:
            OSError: there is none, or it may not be read.
        """
        root = self._sources.root_of(place)
        if root is None:
            raise PermissionError(errno.EACCES, "the job does not allow it")
        scheme, is_url, rest = place.name.partition("://")
        if not is_url:
            path = self._sources.real_path(place.name)
            if path is None:
                raise PermissionError(errno.EACCES, "a link leads out of what the job allows")
            return _as_listed(open_regular(path), place)
        bucket, _, key = rest.partition("/")
        filesystem, base = Folder(f"{scheme}://{bucket}{root.query}").filesystem()
        return filesystem.open_input_file(f"{base}/{key}")

    def _read_whole(self, stream: Any, deadline: float) -> Fetched:
        size, body = stream.seek(0, os.SEEK_END), bytearray()
        stream.seek(0)
        if size > self._options.max_bytes:
            return self._bounded(b"", size)
        while len(body) < size:
            piece = stream.read(min(PIECE_BYTES, size - len(body)))
            if not piece:
                reason = f"{len(body)} of {size} bytes"
                return Fetched(status="truncated", reason=reason, size=len(body), is_transient=True)
            body += piece
            if time.monotonic() > deadline:
                return Fetched(status="timeout", reason="not whole within timeout_s", size=len(body), is_transient=True)
        return self._bounded(bytes(body), size)

    def _bounded(self, body: bytes, size: int) -> Fetched:
        limit = self._options.max_bytes
        if size > limit:
            return Fetched(status="too_large", reason=f"{size} bytes, {limit} allowed", size=len(body))
        return Fetched(status="ok", body=body, size=size)


def _as_listed(stream: BinaryIO, place: Place) -> BinaryIO:
    """The file of an embedded image. After a change, what is in its rows belongs to other labels.

    Raises:
        OSError: it has changed since the manifest was read.
    """
    if place.changed_ns not in (None, os.fstat(stream.fileno()).st_mtime_ns):
        stream.close()
        raise OSError(errno.ESTALE, "the Parquet file has changed since it was listed; run again")
    return stream


def failure_of(error: Exception) -> Fetched:
    """What kept us from a body, in a word where a store's text is long."""
    words = _WORD.findall(str(error))
    if isinstance(error, FileNotFoundError):
        reason = "no such file or object"
    else:
        reason = ", ".join(words) or getattr(error, "strerror", None) or first_line(error).strip("'")
    is_late = isinstance(error, TimeoutError)
    is_transient = is_late or any(map(_AGAIN.fullmatch, words))
    return Fetched(status="timeout" if is_late else "unreadable", reason=reason, is_transient=is_transient)
