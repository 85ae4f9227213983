"""One split of a dataset as memory-mapped arrays: decoded once per node, shared by all processes there.

    rows = open_split(dataset, "train")
    rows.images[indices]                # uint8 [n, height, width, channels]

The page cache is the shared memory: workers, restarts and later runs read the same pages, and the arrays may
exceed the RAM. They lie on node-local disk, in STARTUP_RAY_CACHE, else XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from numpy.typing import NDArray

from startup_ray.dataset import NO_LABEL, Dataset, damaged, require_count, require_one_size
from startup_ray.errors import StorageError
from startup_ray.stored import DAMAGED
from startup_ray.trainers.pixels import Decoder

OnProgress = Callable[[int, int], None]

TOLD_EVERY = 500
"""Rows between two words about progress."""
LOCK_TIMEOUT_S = 3_600.0
"""How long to wait for another process that decodes the same split."""


@dataclass(frozen=True)
class Rows:
    """A split in id order, read from `folder` as it is used."""

    folder: Path

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [rows, height, width, channels], memory-mapped."""
        return np.load(self.folder / "images.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 [rows]: index into the dataset's classes, or NO_LABEL; memory-mapped."""
        return np.load(self.folder / "labels.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the items, one per row."""
        names: list[str] = json.loads((self.folder / "ids.json").read_text("utf-8"))
        return names

    def __len__(self) -> int:
        return len(self.labels)


def open_split(
    dataset: Dataset, split: str, on_progress: OnProgress = lambda *_: None, *, root: Path | None = None
) -> Rows:
    """The arrays of one split, made first if this node does not have them whole.

    Args:
        on_progress: told the rows that are decoded and all of them, while the arrays are made.
        root: where they are kept, the node's cache by default.

    Raises:
        UsageError: each image has a size of its own.
        StorageError: the dataset's files do not hold what `dataset.json` counts, or the cache cannot be written.
    """
    require_one_size(dataset.image_shape, where=str(dataset.folder))
    target = (root or cache_root()) / f"{dataset.folder.name}-{dataset.digest.removeprefix('sha256:')[:16]}" / split
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=LOCK_TIMEOUT_S):
            if not _is_whole(target, dataset, split):
                _replace(target, dataset, split, on_progress)
    except OSError as error:
        hint = "set STARTUP_RAY_CACHE to a folder on local disk with room for the images, or training.feed to stream"
        raise StorageError(f"cannot cache the {split} split: {error}", where=str(target), hint=hint) from error
    return Rows(target)


def cache_root() -> Path:
    """Folder of all caches on this node."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("STARTUP_RAY_CACHE") or f"{base}/startup_ray").expanduser()


def find_caches(name: str, *, root: Path | None = None) -> list[Path]:
    """Folders in which this node has something cached of the dataset in a folder of this name, whatever was in it."""
    named = re.compile(rf"{re.escape(name)}-[0-9a-f]{{16}}")
    places = sorted((root or cache_root()).glob("*-*"))
    return [place for place in places if named.fullmatch(place.name) and any(map(Path.is_dir, place.iterdir()))]


def empty_cache(place: Path) -> None:
    """Delete what is in a folder of `find_caches`. Locks stay in it, for which somebody may be waiting."""
    for split in [path for path in place.iterdir() if path.is_dir()]:
        with FileLock(place / f"{split.name.partition('.')[0]}.lock", timeout=LOCK_TIMEOUT_S):
            shutil.rmtree(split, ignore_errors=True)


def _is_whole(target: Path, dataset: Dataset, split: str) -> bool:
    rows = Rows(target)
    try:
        return rows.images.shape == (dataset.splits[split], *dataset.image_shape) and len(rows) == len(rows.ids)
    except (OSError, ValueError):  # not there, or shorter than its own header says
        return False


def _replace(target: Path, dataset: Dataset, split: str, on_progress: OnProgress) -> None:
    for left in target.parent.glob(f"{split}.tmp-*"):  # by a process that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    draft = target.with_name(f"{split}.tmp-{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        _write(draft, dataset, split, on_progress)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(draft: Path, dataset: Dataset, split: str, on_progress: OnProgress) -> None:
    names = pa.concat_tables([table for _, table in _tables(dataset, split, ["id", "label"])])
    require_count(dataset, split, len(names))
    order = pc.sort_indices(names, sort_keys=[("id", "ascending")])
    index_of: dict[str | None, int] = {name: i for i, name in enumerate(dataset.classes)}
    sorted_names = names.take(order)
    labels = [index_of.get(label, NO_LABEL) for label in sorted_names["label"].to_pylist()]
    np.save(draft / "labels.npy", np.asarray(labels, np.int32))
    (draft / "ids.json").write_text(json.dumps(sorted_names["id"].to_pylist()), "utf-8")
    place = np.empty(len(names), np.int64)
    place[order.to_numpy()] = np.arange(len(names))
    _write_images(draft / "images.npy", dataset, split, place, on_progress)


def _write_images(path: Path, dataset: Dataset, split: str, place: NDArray[np.int64], on_progress: OnProgress) -> None:
    shape = (len(place), *dataset.image_shape)
    if not len(place):
        np.save(path, np.empty(shape, np.uint8))  # an empty file cannot be mapped for writing
        return
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    decoder = Decoder(dataset.image_shape, dataset.image)

    def decode(job: tuple[str, int, bytes]) -> None:
        name, at, encoded = job
        try:
            decoder.into(images[at], encoded)
        except DAMAGED as error:
            raise damaged(dataset, name, error) from error

    start = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the GIL
        for name, table in _tables(dataset, split, ["image"]):
            places = place[start : start + len(table)].tolist()
            jobs = zip(repeat(name), places, table["image"].to_pylist(), strict=False)
            for done, _ in enumerate(pool.map(decode, jobs), start + 1):
                if done % TOLD_EVERY == 0 or done == len(place):
                    on_progress(done, len(place))
            start += len(table)
    images.flush()


def _tables(dataset: Dataset, split: str, columns: list[str]) -> Iterator[tuple[str, Any]]:
    """Shard and table of each row group, so that little is held at once; rows keep the order of the files."""
    filesystem, root = dataset.folder.filesystem()
    for name in dataset.shards:
        try:
            with pq.ParquetFile(f"{root}/images/{name}", filesystem=filesystem, pre_buffer=True) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, [*columns, "split"])
                    yield name, table.filter(pc.equal(table["split"], split)).select(columns)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise damaged(dataset, name, error) from error
