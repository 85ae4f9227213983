"""Folders on local disk or an object store, in which every file appears whole or not at all.

    folder = open_folder("s3://bucket/runs") / "digits-1a2b3c4d-1"
    folder.put_whole("job.yaml", b"...")
    folder.read("job.yaml")
    folder.list("checkpoints")          # ['120', '140']

Nothing here appends: what grows is written in parts.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from startup_ray.errors import StorageError
from startup_ray.object_store import connect, read_whole, write_whole
from startup_ray.steady import steady


@dataclass(frozen=True)
class Folder:
    """A folder by its absolute path or URI (`uri`); it need not exist. Pickles, so workers can be handed one.

    A URI may end in a query that pyarrow understands, e.g. `?endpoint_override=localhost:9000&scheme=http`.
    """

    uri: str

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path(name))

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        return _place_and_query(self.uri)[0].rsplit("/", 1)[-1]

    @property
    def parent(self) -> Folder:
        place, query = _place_and_query(self.uri)
        return Folder(place.rsplit("/", 1)[0] + query)

    @property
    def is_local(self) -> bool:
        """Whether `uri` is a path of this machine's file system."""
        return "://" not in self.uri

    def path(self, name: str = "") -> str:
        """Absolute path or URI of `name` in here."""
        place, query = _place_and_query(self.uri)
        return f"{place}/{name}{query}" if name else self.uri

    def put_whole(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old one or the new one, never a part.

        Raises:
            StorageError: it cannot be written. On an object store it may have been, whole, without our hearing of it.
        """
        with _told("write", self.path(name)):
            if self.is_local:
                _put_local(Path(self.path(name)), data)
            else:
                filesystem, root = _resolve(self.uri)
                write_whole(filesystem, f"{root}/{name}", data)

    def read(self, name: str) -> bytes:
        """Whole content of a file.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be read.
        """
        with _told("read", self.path(name)):
            if self.is_local:
                return Path(self.path(name)).read_bytes()
            filesystem, root = _resolve(self.uri)
            return read_whole(filesystem, f"{root}/{name}")

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of this name is there."""
        from pyarrow.fs import FileType

        with _told("read", self.path(name)):
            filesystem, root = _resolve(self.uri)
            return bool(filesystem.get_file_info(f"{root}/{name}".rstrip("/")).type != FileType.NotFound)

    def list(self, name: str = "") -> list[str]:
        """Sorted names in a folder; none if it does not exist. Files still being written are left out."""
        from pyarrow.fs import FileSelector

        with _told("read", self.path(name)):
            filesystem, root = _resolve(self.uri)
            selector = FileSelector(f"{root}/{name}".rstrip("/"), allow_not_found=True)
            names = [info.base_name for info in filesystem.get_file_info(selector)]
            return sorted(name for name in names if not name.startswith(".tmp-"))

    def usage(self) -> tuple[int, float]:
        """Bytes of all files in here, however deep, and the time of the last change, in seconds since the epoch."""
        from pyarrow.fs import FileSelector

        with _told("read", self.uri):
            filesystem, root = _resolve(self.uri)
            files = filesystem.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
            changed = [info.mtime.timestamp() for info in files if info.mtime is not None]
            return sum(info.size or 0 for info in files), max(changed, default=0.0)

    def delete(self, name: str) -> None:
        """Remove a file or a whole folder; it is no error when there is none."""
        from pyarrow.fs import FileType

        with _told("delete", self.path(name)):
            filesystem, root = _resolve(self.uri)
            kind = filesystem.get_file_info(f"{root}/{name}").type
            if kind == FileType.Directory:
                filesystem.delete_dir(f"{root}/{name}")
            elif kind != FileType.NotFound:
                filesystem.delete_file(f"{root}/{name}")

    def clear_drafts(self, name: str = "") -> None:
        """Remove what killed processes left half written in a folder; call it only as its one writer."""
        if self.is_local:
            with _told("delete", self.path(name)):
                for draft in Path(self.path(name)).glob(".tmp-*"):
                    draft.unlink(missing_ok=True)

    def filesystem(self) -> tuple[Any, str]:
        """`pyarrow.fs.FileSystem` and the path in it, for readers of Parquet."""
        filesystem, root = _resolve(self.uri)
        return filesystem if self.is_local else steady(_bucket(self.uri)[0]), root


def open_folder(location: str) -> Folder:
    """A folder from what a job file says: a path (relative ones to the working directory) or a URI.

    Raises:
        StorageError: pyarrow knows no such scheme, or the URI holds a password: it would stand in every document.
    """
    location = location.removeprefix("file://")
    if "://" not in location:
        return Folder(os.path.abspath(os.path.expanduser(location)))
    place, query = _place_and_query(location)
    scheme, _, rest = place.partition("://")
    login, at, host = rest.partition("/")[0].rpartition("@")
    if ":" in login:
        raise StorageError(
            "a password does not belong into a storage location",
            where=f"{scheme}://...{at}{host}",
            hint="set it in the environment of the command and of the workers, e.g. AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )
    folder = Folder(place.rstrip("/") + query)
    with _told("use", place):  # without its query, where somebody may have tried to give a key
        _resolve(folder.uri)
    return folder


def _place_and_query(uri: str) -> tuple[str, str]:
    """`s3://bucket/runs?region=x` -> `s3://bucket/runs`, `?region=x`; a local path has no query."""
    place, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return place, mark + query


def _resolve(uri: str) -> tuple[Any, str]:
    """`pyarrow.fs.FileSystem` and the path in it."""
    from pyarrow import fs

    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    bucket, path = _bucket(uri)
    filesystem, base = connect(bucket)
    return filesystem, f"{base.rstrip('/')}/{path}" if path else base


def _bucket(uri: str) -> tuple[str, str]:
    """`s3://bucket/runs/a?region=x` -> `s3://bucket?region=x`, `runs/a`; folders of a bucket share a connection."""
    place, query = _place_and_query(uri)
    scheme, _, rest = place.partition("://")
    root, _, path = rest.partition("/")
    return f"{scheme}://{root or '/'}{query}", path


def _put_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _told(verb: str, place: str) -> Iterator[None]:
    """Faults of a file system as `StorageError`; a missing file stays `FileNotFoundError`."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        if verb == "read" and isinstance(error, FileNotFoundError):
            raise
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0]
        hint = "name a place that can be written: `storage` in the job file, or --out" if verb == "write" else ""
        raise StorageError(f"cannot {verb} here: {reason}", where=place, hint=hint) from error
