"""Manifests: from a file or URL, as a stream, to items and to bad rows that become rows of the ledger.

    with open_manifest("cats.jsonl") as manifest:
        for row in manifest.rows():       # Item or BadRow, positions 0, 1, 2, ...
            ...
        manifest.digest()                 # 'sha256:...' over the raw bytes

Forms: `{"items": [{"id", "url", "label", "split"}, ...]}` or the bare list in `.json`, one object a line in
`.jsonl`. `label` and `split` may be left out. A row that is no item never stops the reading; a manifest that
cannot be read at all is a ManifestError. Only one row is held at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from startup_ray.errors import ManifestError
from startup_ray.items import BadRow, Item, parse_row
from startup_ray.ledger import redact
from startup_ray.rows import SHAPE, json_rows, jsonl_rows

TIMEOUT_S = (10.0, 30.0)
"""Limits for connecting to the server of a manifest and for each read from it."""
TOTAL_TIMEOUT_S = 3_600.0

SAMPLES = {"sample:digits": 1, "sample:photos": 1}
"""Samples with the version of what they hold."""

_FORMS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class Manifest:
    """An open manifest. `rows` may be read once."""

    def __init__(self, stream: BinaryIO, form: str, where: str) -> None:
        self._hash = hashlib.sha256()
        self._stream: io.BufferedReader = io.BufferedReader(_Tee(stream.read, self._hash.update), 1 << 16)
        self._form = form
        self._where = where

    def rows(self) -> Iterator[Item | BadRow]:
        """Every row in order.

        Raises:
            ManifestError: not JSON, no list of items, none in it, or the connection broke.
        """
        read = json_rows if self._form == "json" else jsonl_rows
        position = -1
        for position, value in enumerate(read(self._stream, self._where)):
            yield parse_row(value, position)
        if position < 0:
            raise ManifestError("no items in this manifest", where=self._where, hint=SHAPE)

    def digest(self) -> str:
        """`sha256:` and hex over all raw bytes; reads what is left of them."""
        while self._stream.read(1 << 20):
            pass
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def open_manifest(location: str) -> Iterator[Manifest]:
    """The manifest at a local path or an http(s) URL.

    Raises:
        ManifestError: no such file, an unknown form, or a server that does not hand it out.
    """
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise ManifestError(f"the manifest's URL cannot be parsed: {error}", where=redact(location)) from error
    is_url = parts.scheme in ("http", "https") and "://" in location
    if "://" in location and not is_url:
        raise ManifestError("a manifest is a path or an http(s) URL", where=redact(location))
    name = parts.path if is_url else location
    form = _FORMS.get(PurePosixPath(name).suffix.lower())
    where = redact(location) if is_url else location
    if form is None:
        raise ManifestError("unknown kind of manifest", where=where, hint=f"use {', '.join(_FORMS)}, or sample:digits")
    with (_open_url if is_url else _open_path)(location) as stream:
        yield Manifest(stream, form, where)


def is_manifest(location: str) -> bool:
    """Whether a word can only mean a manifest, by its form."""
    is_known = PurePosixPath(location).suffix.lower() in _FORMS
    return "://" in location or location.startswith("sample:") or is_known


def manifest_digest(location: str) -> str:
    """`sha256:` and hex over the raw bytes; of a sample over its name and version, without reading it.

    Raises:
        ManifestError: it cannot be read, or there is no such sample.
    """
    if location.startswith("sample:"):
        return f"sha256:{hashlib.sha256(f'{location}@{sample_version(location)}'.encode()).hexdigest()}"
    with open_manifest(location) as manifest:
        return manifest.digest()


def require_manifest(location: str) -> None:
    """See that there is a manifest, without reading it.

    Raises:
        ManifestError: as `open_manifest`, or there is no such sample.
    """
    if location.startswith("sample:"):
        sample_version(location)
        return
    with open_manifest(location):
        pass


def sample_version(name: str) -> int:
    """Version of the content of `sample:NAME`.

    Raises:
        ManifestError: there is no such sample.
    """
    if name not in SAMPLES:
        raise ManifestError("no such sample", where=name, hint=f"there are: {', '.join(SAMPLES)}")
    return SAMPLES[name]


@contextmanager
def _open_path(location: str) -> Iterator[BinaryIO]:
    with _unreadable(location):
        stream = open(os.path.expanduser(location), "rb", buffering=0)  # noqa: SIM115 - closed below
    with stream:
        yield _File(stream, location)  # type: ignore[misc]


class _File:
    """`read` of a local file, with its faults as ManifestError."""

    def __init__(self, stream: io.RawIOBase, location: str) -> None:
        self._stream, self._location = stream, location

    def read(self, size: int) -> bytes:
        with _unreadable(self._location):
            return self._stream.read(size) or b""


@contextmanager
def _unreadable(location: str) -> Iterator[None]:
    """Faults of a path and of its file as ManifestError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL, or a sign that no file name can hold
        reason = getattr(error, "strerror", None) or "no path"
        message = f"cannot read the manifest: {reason}"
        raise ManifestError(message, where=location, hint="check `ingest.manifest`") from error


@contextmanager
def _open_url(location: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator[BinaryIO]:
    import requests

    def broken(error: Exception) -> ManifestError:
        return ManifestError(
            f"cannot fetch the manifest: {type(error).__name__}", where=redact(location), hint="check `ingest.manifest`"
        )

    with requests.Session() as session:
        # A proxy of the environment cannot reach this machine's own loopback.
        session.trust_env = urlsplit(location).hostname not in ("127.0.0.1", "localhost", "::1")
        try:
            response = session.get(location, stream=True, timeout=TIMEOUT_S)
        except (requests.RequestException, ValueError) as error:
            raise broken(error) from error
        with response:
            if response.status_code != 200:
                raise ManifestError(f"the server answered {response.status_code}", where=redact(location))
            yield _Body(response, clock() + TOTAL_TIMEOUT_S, clock, broken)  # type: ignore[misc]


class _Body:
    """`read` of a response's body, with its faults as ManifestError and a limit for the whole."""

    def __init__(
        self, response: Any, deadline: float, clock: Callable[[], float], broken: Callable[[Exception], ManifestError]
    ) -> None:
        self._raw, self._deadline, self._clock, self._broken = response.raw, deadline, clock, broken

    def read(self, size: int) -> bytes:
        import urllib3

        if self._clock() > self._deadline:
            raise self._broken(TimeoutError())
        try:
            data: bytes = self._raw.read(size, decode_content=True)
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
