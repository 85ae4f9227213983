"""The bytes of a list, from a path, an http(s) URL or an object store, with every fault as a ManifestError.

    with open_stream("https://example.com/cats.csv.gz", is_packed=True) as stream:
        stream.readline()           # unpacked
        stream.digest()             # 'sha256:...' over the bytes as they came, packed, and over those that are left

    with open_seekable("s3://lists/cats.parquet") as file:      # what `pyarrow.parquet` reads

Nothing is held but a block of each.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from startup_ray.errors import ManifestError, first_line
from startup_ray.ledger import redact
from startup_ray.manifests.forms import STORES, scheme_of
from startup_ray.storage import open_folder

TIMEOUT_S = (10.0, 30.0)
"""Limits for connecting to the server of a manifest and for each read from it."""
TOTAL_TIMEOUT_S = 3_600.0
MOST_UNPACKED = 200
"""Bytes that a byte may unpack to, of a file that is unpacked to disk; gzip itself can make a thousand of one."""

_BLOCK = 1 << 16
_HINT = "check `ingest.manifest`"


class Readable(Protocol):
    """At most so many bytes; none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Stream(io.BufferedReader):
    """Bytes of a list, unpacked if it is packed."""

    def __init__(self, source: Readable, where: str, *, is_packed: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._packed: io.BufferedReader = io.BufferedReader(_Tee(source.read, self._hash.update), _BLOCK)
        super().__init__(_Unpacked(self._packed, where) if is_packed else self._packed, _BLOCK)

    def digest(self) -> str:
        """`sha256:` and hex over all bytes as they came; reads what is left of them."""
        while self._packed.read(1 << 20):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def where_of(location: str) -> str:
    """A location as errors show it."""
    return redact(location) if "://" in location else location


@contextmanager
def open_stream(location: str, *, is_packed: bool = False) -> Iterator[Stream]:
    """The list at a location.

    Raises:
        ManifestError: it cannot be read, also later, from the stream.
    """
    with _open_raw(location, is_packed=is_packed) as source:
        yield Stream(source, where_of(location), is_packed=is_packed)


@contextmanager
def open_seekable(location: str, *, is_packed: bool = False) -> Iterator[Any]:
    """A file that can be read at any place; what comes by HTTP or is packed lies in a temporary file meanwhile.

    Raises:
        ManifestError: it cannot be read.
    """
    if is_packed or scheme_of(location) in ("http", "https"):
        with tempfile.TemporaryFile(prefix="startup-ray-") as copy:
            with open_stream(location, is_packed=is_packed) as stream:
                _copy(stream, copy, where_of(location), os.path.getsize(location) if os.path.isfile(location) else None)
            yield copy
    elif scheme_of(location):
        filesystem, path = open_folder(location).filesystem()
        with as_manifest_error(location):
            file = filesystem.open_input_file(path)
        with file:
            yield file
    else:
        with as_manifest_error(location):
            file = open(os.path.expanduser(location), "rb")  # noqa: SIM115 - closed below
        with file:
            yield file


@contextmanager
def as_manifest_error(location: str) -> Iterator[None]:
    """Faults of a path or an object as ManifestError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL, or a sign that no file name can hold
        reason = getattr(error, "strerror", None) or ("no path" if not scheme_of(location) else first_line(error))
        raise ManifestError(f"cannot read the manifest: {reason}", where=where_of(location), hint=_HINT) from error


def _copy(stream: Stream, copy: IO[bytes], where: str, packed_size: int | None) -> None:
    most = None if packed_size is None else packed_size * MOST_UNPACKED + _BLOCK
    while block := stream.read(1 << 20):
        copy.write(block)
        if most is not None and copy.tell() > most:
            raise ManifestError(f"unpacks to more than {MOST_UNPACKED} times its size", where=where)
    copy.seek(0)


@contextmanager
def _open_raw(location: str, *, is_packed: bool) -> Iterator[Readable]:
    scheme = scheme_of(location)
    if scheme in ("http", "https"):
        with _open_url(location, is_packed=is_packed) as body:
            yield body
    elif scheme in STORES:
        with as_manifest_error(location):
            filesystem, path = open_folder(location).filesystem()
            file = filesystem.open_input_stream(path, compression=None)
        with file:
            yield _File(file, location)
    else:
        with as_manifest_error(location):
            file = open(os.path.expanduser(location), "rb", buffering=0)  # noqa: SIM115 - closed below
        with file:
            yield _File(file, location)


class _File:
    """`read` of a file or an object, with its faults as ManifestError."""

    def __init__(self, file: Any, location: str) -> None:
        self._file, self._location = file, location

    def read(self, size: int, /) -> bytes:
        with as_manifest_error(self._location):
            return self._file.read(size) or b""


@contextmanager
def _open_url(location: str, *, is_packed: bool, clock: Callable[[], float] = time.monotonic) -> Iterator[Readable]:
    """The body of an answer.

    Args:
        is_packed: it is a file that is packed, and stays so on its way; what a server packs by itself is unpacked.
    """
    import requests

    def broken(error: Exception) -> ManifestError:
        message = f"cannot fetch the manifest: {type(error).__name__}"
        return ManifestError(message, where=redact(location), hint=_HINT)

    with requests.Session() as session:
        # A proxy of the environment cannot reach this machine's own loopback.
        session.trust_env = urlsplit(location).hostname not in ("127.0.0.1", "localhost", "::1")
        headers = {"Accept-Encoding": "identity"} if is_packed else {}
        try:
            response = session.get(location, stream=True, timeout=TIMEOUT_S, headers=headers)
        except (requests.RequestException, ValueError) as error:
            raise broken(error) from error
        with response:
            if response.status_code != 200:
                raise ManifestError(f"the server answered {response.status_code}", where=redact(location))
            yield _Body(response, not is_packed, clock() + TOTAL_TIMEOUT_S, clock, broken)


class _Body:
    """`read` of a response's body, with its faults as ManifestError and a limit for the whole."""

    def __init__(
        self,
        response: Any,
        decode: bool,
        deadline: float,
        clock: Callable[[], float],
        broken: Callable[[Exception], ManifestError],
    ) -> None:
        self._raw, self._decode = response.raw, decode
        self._deadline, self._clock, self._broken = deadline, clock, broken

    def read(self, size: int, /) -> bytes:
        import urllib3

        if self._clock() > self._deadline:
            raise self._broken(TimeoutError())
        try:
            data: bytes = self._raw.read(size, decode_content=self._decode)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(error) from error
        return data


class _Tee(io.RawIOBase):
    """Bytes of `read`, each handed to `see` on its way."""

    def __init__(self, read: Callable[[int], bytes], see: Callable[[bytes], None]) -> None:
        self._read, self._see = read, see

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        self._see(data)
        buffer[: len(data)] = data
        return len(data)


class _Unpacked(io.RawIOBase):
    """What gzip has packed, with its faults as ManifestError."""

    def __init__(self, packed: io.BufferedReader, where: str) -> None:
        self._file, self._where = gzip.GzipFile(fileobj=packed, mode="rb"), where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = "it ends too early" if isinstance(error, EOFError) else first_line(error)
            raise ManifestError(f"cannot unpack the manifest: {reason}", where=self._where, hint=_HINT) from error
        buffer[: len(data)] = data
        return len(data)
