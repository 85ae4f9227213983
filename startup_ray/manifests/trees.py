"""Folders of this machine and of object stores: what lies in them, in one order, and nothing outside of them.

    tree = open_tree("photos")                    # or "s3://bucket/photos"
    top(tree)                                     # what lies directly in it, folders too
    for entry in walk(tree):                      # every file: Entry(name='cats/1.jpg', size=5123, changed_ns=...)
        tree.url(entry.name)                      # 'file:///home/me/photos/cats/1.jpg'

Laws: what is hidden is left out; no link leads out of the folder, and one to a folder within it is left out, since its
files are found where they are; the order is that of whole names. Memory grows with the largest folder alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from startup_ray.manifests.forms import name_of, scheme_of
from startup_ray.storage import open_folder


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or a folder."""

    name: str
    """Below the tree, with `/`; of a local file as `os.fsdecode` has it."""
    is_folder: bool = False
    size: int = 0
    changed_ns: int = 0
    """When it was changed last, in ns since the epoch."""
    fault: str = ""
    """Why it is not read."""


class Tree(Protocol):
    """A folder."""

    def entries(self, folder: str = "") -> list[Entry]:
        """What lies in the tree, or in a folder of it, in any order.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def url(self, name: str) -> str:
        """The URL of a file in it, as items have it: `file:///...`, or that of an object without a query."""
        ...

    def location(self, name: str) -> str:
        """Where a file in it is opened: a path, or a URL with the query of the tree's own."""
        ...


def open_tree(location: str) -> Tree | None:
    """The folder at a path or an `s3://` or `gs://` URL; None if there is none.

    Raises:
        OSError, ValueError: it cannot even be looked for.
        StorageError: there is no such store.
    """
    if not scheme_of(location):
        path = os.path.abspath(os.path.expanduser(location))
        return LocalTree(path) if os.path.isdir(path) else None
    from pyarrow.fs import FileType

    filesystem, path = open_folder(location).filesystem()
    is_folder = filesystem.get_file_info(path).type == FileType.Directory
    return StoreTree(location, filesystem, path) if is_folder else None


def url_of(location: str) -> str:
    """The URL of a file at a path or URL, as `Tree.url` has it."""
    if scheme_of(location):
        return location.partition("?")[0]
    return Path(os.path.abspath(os.path.expanduser(location))).as_uri()


def entry_at(location: str) -> Entry:
    """What is known of a single file, at a path or on an object store.

    Raises:
        OSError: it cannot be looked at.
    """
    if not scheme_of(location):
        state = os.stat(os.path.expanduser(location))
        return Entry(name=name_of(location), size=state.st_size, changed_ns=state.st_mtime_ns)
    filesystem, path = open_folder(location).filesystem()
    info = filesystem.get_file_info(path)
    return Entry(name=name_of(location), size=info.size or 0, changed_ns=info.mtime_ns or 0)


def top(tree: Tree) -> list[Entry]:
    """What lies directly in a tree, sorted.

    Raises:
        OSError: it cannot be read.
    """
    return sorted(tree.entries(), key=_order)


def walk(tree: Tree) -> Iterator[Entry]:
    """Every file, sorted; a folder that cannot be read is an entry with a fault."""
    folders = [iter([Entry(name="", is_folder=True)])]
    while folders:
        entry = next(folders[-1], None)
        if entry is None:
            folders.pop()
        elif not entry.is_folder:
            yield entry
        else:
            try:
                folders.append(iter(sorted(tree.entries(entry.name), key=_order)))
            except OSError as error:
                yield Entry(name=entry.name, fault=reason_of(error))


def open_regular(path: str) -> BinaryIO:
    """A regular file, for reading; of anything else, such as a pipe, the reader might wait for ever.

    Args:
        path: without a link at its end.

    Raises:
        OSError: it is none, or cannot be read.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)  # before `fdopen`, which refuses a folder and leaves its descriptor open
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(number, "rb")


def reason_of(error: OSError) -> str:
    """Why a file or folder cannot be read."""
    return f"cannot be read: {error.strerror or type(error).__name__}"


class LocalTree:
    """A folder of this machine, by its absolute path."""

    def __init__(self, root: str) -> None:
        self._root, self._real = root, Path(os.path.realpath(root))

    def entries(self, folder: str = "") -> list[Entry]:
        with os.scandir(os.path.join(self._root, folder)) as found:
            entries = [self._entry(entry, folder) for entry in found if not entry.name.startswith(".")]
        return [entry for entry in entries if entry is not None]

    def url(self, name: str) -> str:
        return url_of(self.location(name))

    def location(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _entry(self, entry: os.DirEntry[str], folder: str) -> Entry | None:
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            return Entry(name=name, is_folder=True)
        if entry.is_symlink():
            target = Path(os.path.realpath(entry.path))
            if not target.is_relative_to(self._real):
                return Entry(name=name, fault="a link that leaves the folder")
            if target.is_dir():
                return None
        try:
            state = entry.stat()
        except OSError:  # a link in a circle, or to nowhere; or the file is gone, as its reader will tell
            return Entry(name=name)
        if not stat.S_ISREG(state.st_mode):  # who opens a pipe may wait for ever
            return Entry(name=name, fault="cannot be read: not a regular file")
        return Entry(name=name, size=state.st_size, changed_ns=state.st_mtime_ns)


class StoreTree:
    """A part of a bucket, by its URL and as pyarrow knows it."""

    def __init__(self, location: str, filesystem: Any, root: str) -> None:
        self._place, self._mark, self._query = location.partition("?")
        self._filesystem, self._root = filesystem, root.rstrip("/")

    def entries(self, folder: str = "") -> list[Entry]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(f"{self._root}/{folder}".rstrip("/"))
        found = self._filesystem.get_file_info(selector)
        return [self._entry(info) for info in found if info.base_name and not info.base_name.startswith(".")]

    def url(self, name: str) -> str:
        return f"{self._place.rstrip('/')}/{name}"

    def location(self, name: str) -> str:
        return self.url(name) + self._mark + self._query

    def _entry(self, info: Any) -> Entry:
        from pyarrow.fs import FileType

        name = info.path.removeprefix(f"{self._root}/")
        if info.type == FileType.Directory:
            return Entry(name=name.rstrip("/"), is_folder=True)
        return Entry(name=name, size=info.size or 0, changed_ns=info.mtime_ns or 0)


def _order(entry: Entry) -> str:
    return f"{entry.name}/" if entry.is_folder else entry.name
