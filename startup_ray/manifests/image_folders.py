"""Rows of a folder of images: the folder that an image lies in is its class.

    photos/cats/1.jpg                 # id 'cats/1.jpg', label 'cats'
    photos/cats/old/2.jpg             # id 'cats/old/2.jpg', label 'cats'
    photos/3.jpg                      # no label
    photos/train/cats/4.jpg           # label 'cats', split 'train', if all folders at the top are splits

    for value, id in image_rows(open_tree("photos"), see=digest.update):
        ...

Any file may be an image, its bytes decide; files with the ending of a list, which often lie beside images, are left
out. The URL of a row tells when its file was changed, so that another image in its place is another item.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from startup_ray.items import NoRow, OwnUrl
from startup_ray.manifests.forms import form_of
from startup_ray.manifests.trees import Entry, Tree, top, walk

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""Names of folders, and of lists in a folder, that stand for a split."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""By which a folder of images is told from one of lists; what is an image is told by its bytes."""


def is_image_folder(entries: Iterable[Entry]) -> bool:
    """Whether what lies at the top of a folder says that it is one of images: folders, or files named like images."""
    return any(entry.is_folder or entry.name.lower().endswith(ENDINGS) for entry in entries)


def image_rows(tree: Tree, see: Callable[[bytes], object]) -> Iterator[tuple[Any, str]]:
    """Each image as a row of a list with columns of the usual names, or a NoRow, and its id.

    Args:
        see: is shown a line that tells each file and its state from every other.

    Raises:
        OSError: the folder cannot be read.
    """
    folders = [entry.name.lower() for entry in top(tree) if entry.is_folder]
    has_splits = bool(folders) and SPLIT_NAMES.keys() >= set(folders)
    for entry in walk(tree):
        if form_of(entry.name.rpartition("/")[2]) is None:
            see(line_of(entry))
            item_id = text_of(entry.name)
            yield NoRow(entry.fault, item_id) if entry.fault else _row(tree, entry, item_id, has_splits), item_id


def line_of(entry: Entry) -> bytes:
    """What tells a file, and its state, from every other."""
    return f"{text_of(entry.name)!r} {entry.size} {entry.changed_ns}\n".encode()


def text_of(name: str) -> str:
    """A file's name as text that every file can take: names are bytes, and need be no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _row(tree: Tree, entry: Entry, item_id: str, has_splits: bool) -> dict[str, Any]:
    *folders, _ = item_id.split("/")
    split = SPLIT_NAMES[folders.pop(0).lower()] if has_splits and folders else None
    url = OwnUrl(f"{tree.url(entry.name)}#changed={entry.changed_ns}")
    return {"id": item_id, "url": url, "label": folders[0] if folders else None, "split": split}
