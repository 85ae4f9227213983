"""What may be read besides http(s): files, object stores, and images embedded in Parquet files.

    sources = sources_of(job.ingest, location_of(job.ingest.manifest))
    sources.judge("cats/1.jpg")                 # Judged(url='file:///data/cats/1.jpg', status='', reason='')
    sources.judge("/etc/passwd")                # Judged(..., status='blocked_scheme', reason='not below ...')
    place_of("s3://bucket/x.parquet#group=0&row=7")

URLs of items:

    file:///data/cats/1.jpg                     percent-encoded, as by `pathlib.Path.as_uri`
    s3://bucket/cats/1.jpg, gs://...            bucket and key as they are, nothing encoded, no query
    <either>#group=0&row=7                      the image embedded in row 7 of row group 0 of a Parquet file
    <either>#changed=1764166121000000000        as a reader saw it last changed, which matters to tell items apart alone

Law: a row of a list reads nothing but what the job allows (`fetch.allow_files`, `fetch.allow_storage`); the manifest's
own folder or Parquet file is open only to items that a reader made of its content, never to a row that names it. What
a store is reached by (endpoint, region) comes from the job alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from startup_ray.ingest_options import IngestOptions
from startup_ray.manifests.forms import KINDS, PACKED, STORES

SCHEMES = ("file", *STORES)
"""Of URLs whose bodies come by no request of HTTP."""

_CLOSED = {
    "file": "a file that is not below a folder of fetch.allow_files",
    **dict.fromkeys(STORES, "an object that is not below a place of fetch.allow_storage"),
}
_LISTS = tuple(ending for ending, kind in KINDS.items() if kind != "parquet")
"""Endings of manifests that hold no images themselves."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_EMBEDDED = re.compile(r"#group=(\d{1,9})&row=(\d{1,12})(?:&changed=(\d{1,20}))?$")
_CHANGED = re.compile(r"#changed=\d{1,20}$")
"""When the reader of a folder has seen the file change last: of another state it is another item."""


class Judged(NamedTuple):
    """What became of a URL or path in a list."""

    url: str
    """Absolute; as it was if it may not be read."""
    status: str = ""
    """Empty, or a state of the ledger."""
    reason: str = ""


class Place(NamedTuple):
    """Where a body lies."""

    name: str
    """Absolute path, or `s3://bucket/key`."""
    group: int | None = None
    row: int | None = None
    """Of an embedded image: the row group of its Parquet file, and the row therein."""
    changed_ns: int | None = None
    """When that file was changed last, as the reader of the manifest has seen it."""


class Root(NamedTuple):
    """A folder, a part of a bucket, or a single file, below which may be read."""

    name: str
    """As of a `Place`, without a slash at its end."""
    query: str = ""
    """What the store is reached by, with its question mark."""

    def holds(self, name: str) -> bool:
        """Whether a place is this one, or below it."""
        return name == self.name or name.startswith(f"{self.name.rstrip('/')}/")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a job allows to be read. It pickles; its paths are absolute."""

    roots: tuple[Root, ...] = ()
    """Open to every row of a list."""
    own: Root | None = None
    """Open to what a reader finds in a folder of images, or in a Parquet file."""
    base: str = ""
    """Folder that relative paths are taken from; empty without any."""

    @property
    def is_local(self) -> bool:
        """Whether there may be items that only this machine, or a file system that all share, can hand out."""
        return any("://" not in root.name for root in self._all)

    def judge(self, text: str) -> Judged:
        """A URL or path in a row of a list -> an absolute URL, and why it may not be read."""
        found = _SCHEME.match(text)
        scheme = found[1].lower() if found else ""
        if scheme in ("http", "https"):
            return Judged(text)
        if "\0" in text:
            return Judged(text, "bad_url", "holds a NUL")
        if scheme in SCHEMES and not any(("://" in root.name) == (scheme in STORES) for root in self.roots):
            return Judged(text, "blocked_scheme", _CLOSED[scheme])
        if scheme in STORES:
            return self._judge_object(scheme, text)
        if scheme in ("", "file"):
            return self._judge_file(scheme, text)
        return Judged(text, "blocked_scheme", f"{scheme[:20]}: is none of http, https, {', '.join(SCHEMES)}")

    def root_of(self, place: Place) -> Root | None:
        """The nearest root that a place lies below; None if it may not be read."""
        holding = [root for root in self._all if root.holds(place.name)]
        return max(holding, key=lambda root: len(root.name), default=None)

    def real_path(self, path: str) -> str | None:
        """A local path without links; None if they lead out of what may be read."""
        real = os.path.realpath(path)
        return real if any(Root(os.path.realpath(name)).holds(real) for name in self._folders) else None

    @property
    def _all(self) -> tuple[Root, ...]:
        return (*self.roots, self.own) if self.own else self.roots

    @property
    def _folders(self) -> list[str]:
        return [root.name for root in self._all if "://" not in root.name]

    def _judge_file(self, scheme: str, text: str) -> Judged:
        path, fault = _path_of_url(text) if scheme else self._path_of_name(text)
        if fault:
            return Judged(text, "bad_url", fault)
        if not any(root.holds(path) for root in self.roots):
            return Judged(text, "blocked_scheme", _CLOSED["file"])
        return Judged(Path(path).as_uri())

    def _path_of_name(self, text: str) -> tuple[str, str]:
        if not text or text.startswith("//"):
            return "", "has no scheme"
        if not os.path.isabs(text) and not self.base:
            return "", "a relative path, and the manifest is no local file"
        return os.path.normpath(os.path.join(self.base, text)), ""

    def _judge_object(self, scheme: str, text: str) -> Judged:
        _, slashes, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if not slashes or not bucket or not key:
            return Judged(text, "bad_url", f"is not {scheme}://bucket/key")
        if "?" in text:
            return Judged(text, "bad_url", "a store's query belongs to fetch.allow_storage")
        if _EMBEDDED.search(text) or _CHANGED.search(text):
            return Judged(text, "bad_url", "names a row of a Parquet file, or the state of a file")
        if _climbs(key):
            return Judged(text, "bad_url", "its key has an empty part, or one of dots")
        url = f"{scheme}://{bucket}/{key}"
        if not any(root.holds(url) for root in self.roots):
            return Judged(text, "blocked_scheme", _CLOSED[scheme])
        return Judged(url)


NO_SOURCES = Sources()
"""Only http(s)."""


def sources_of(options: IngestOptions, manifest_location: str) -> Sources:
    """What a job allows; call it where relative paths of the job are meant.

    Args:
        manifest_location: as by `runs.location_of`.
    """
    folders = [Root(os.path.abspath(os.path.expanduser(name))) for name in options.fetch.allow_files]
    stores = [_root_of_url(url) for url in options.fetch.allow_storage]
    location = manifest_location.removeprefix("file://")
    if "://" not in location and not location.startswith("sample:"):
        path = os.path.abspath(os.path.expanduser(location))
        is_folder = os.path.isdir(path)
        own = Root(path) if is_folder or not _is_list(path) else None
        return Sources(roots=(*folders, *stores), own=own, base=path if is_folder else os.path.dirname(path))
    is_store = location.partition("://")[0].lower() in STORES
    own = _root_of_url(location) if is_store and not _is_list(location) else None
    return Sources(roots=(*folders, *stores), own=own)


def place_of(url: str) -> Place:
    """The place that the URL of an item names (see above), which `judge` or a reader has made.

    Raises:
        ValueError: it names no such place.
    """
    found = _EMBEDDED.search(url)
    name = url[: found.start()] if found else _CHANGED.sub("", url)
    scheme = name.partition(":")[0]
    if scheme not in SCHEMES:
        raise ValueError("neither a file nor an object")
    if scheme == "file":
        name, fault = _path_of_url(name)
        if fault:
            raise ValueError(fault)
    elif _climbs(name.partition("://")[2]):
        raise ValueError("its key has an empty part, or one of dots")
    return Place(name, int(found[1]), int(found[2]), int(found[3]) if found[3] else None) if found else Place(name)


def is_place(url: str) -> bool:
    """Whether a URL's body comes by no request of HTTP."""
    return url.partition(":")[0] in SCHEMES


def _path_of_url(url: str) -> tuple[str, str]:
    """Path of a `file:` URL (RFC 8089), and why there is none."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its words hold what stands before the host, passwords too
        return "", "cannot be parsed"
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.netloc not in ("", "localhost"):
        return "", "a file of another machine"
    if "?" in url or "#" in url:
        return "", "in the URL of a file ? is written %3F, and # %23"
    if "\0" in path:
        return "", "holds a NUL"
    if not path.startswith("/") or path.startswith("//"):
        return "", "not an absolute path"
    return os.path.normpath(path), ""


def _climbs(key: str) -> bool:
    """Whether a key is not taken as it is: clients undo its dots, as those of a path, and so leave what is open."""
    return any(part in ("", ".", "..") for part in key.split("/"))


def _root_of_url(url: str) -> Root:
    name, mark, query = url.partition("?")
    scheme, _, rest = name.partition("://")
    return Root(f"{scheme.lower()}://{rest.rstrip('/')}", mark + query)


def _is_list(location: str) -> bool:
    name = location.partition("?")[0] if "://" in location else location
    return name.lower().removesuffix(PACKED).endswith(_LISTS)
