"""The labelled rows of a split, read from the dataset's shards as they are needed.

    groups = find_groups(dataset, "train")
    held = read(dataset, "train", cuts, rows=32)
    images, labels = held.decode(0, 10)         # of ten steps: uint8 [10, rows, H, W, C], int32 [10, rows]

What is held of a window is its encoded images; they are decoded a few steps at a time. Each worker reads the row groups
of a window whole, and keeps and decodes its own rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from startup_ray.dataset import NO_LABEL, Dataset, damaged, require_count
from startup_ray.stored import DAMAGED
from startup_ray.trainers.pixels import Decoder
from startup_ray.trainers.windows import Cut, Group

FILES_AT_ONCE = 8
"""Files whose columns are counted together: on an object store most of the time is waiting."""
GROUPS_AT_ONCE = 2
"""Row groups read together. Each is held whole until the rows that are wanted have been taken from it."""


def find_groups(dataset: Dataset, split: str) -> tuple[Group, ...]:
    """All row groups with labelled rows of a split, in the order of the files.

    Raises:
        StorageError: a shard cannot be read, or they do not hold what `dataset.json` counts.
    """
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        found = list(pool.map(lambda shard: _count(dataset, split, shard), dataset.shards))
    require_count(dataset, split, sum(rows for rows, _ in found))
    return tuple(group for _, groups in found for group in groups)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A worker's rows of a window, encoded until they are wanted."""

    dataset: Dataset
    cuts: Sequence[Cut]
    encoded: list[bytes]
    labels: NDArray[np.int32]
    rows: int
    """Of a step."""
    threads: int
    """That decode together."""

    @property
    def steps(self) -> int:
        return len(self.encoded) // self.rows

    def decode(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Images uint8 [stop - first, rows, H, W, C] and labels int32 [stop - first, rows]; once, then they are gone.

        Raises:
            StorageError: an image cannot be decoded.
        """
        low, high = first * self.rows, stop * self.rows
        images = np.empty((high - low, *self.dataset.image_shape), np.uint8)
        decoder = Decoder(self.dataset.image_shape, self.dataset.image)

        def fill(places: range) -> None:
            for place in places:
                try:
                    decoder.into(images[place - low], self.encoded[place])
                except DAMAGED as error:
                    raise damaged(self.dataset, _shard_of(self.cuts, place), error) from error
                self.encoded[place] = b""

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fill, _parts(low, high, self.threads)))
        shape = (stop - first, self.rows)
        return images.reshape(*shape, *self.dataset.image_shape), self.labels[low:high].reshape(shape)


def read(dataset: Dataset, split: str, cuts: Sequence[Cut], *, rows: int, threads: int = 1) -> Held:
    """A worker's rows of a window.

    Raises:
        StorageError: a shard cannot be read.
    """
    count = sum(len(cut.rows) for cut in cuts)
    encoded, labels = [b""] * count, np.empty(count, np.int32)
    with ThreadPoolExecutor(GROUPS_AT_ONCE) as pool:
        for cut, (images, classes) in zip(cuts, pool.map(lambda cut: _read(dataset, split, cut), cuts), strict=True):
            labels[cut.places] = classes
            for place, image in zip(cut.places.tolist(), images.to_pylist(), strict=True):
                encoded[place] = image
    return Held(dataset=dataset, cuts=cuts, encoded=encoded, labels=labels, rows=rows, threads=threads)


def _count(dataset: Dataset, split: str, shard: str) -> tuple[int, list[Group]]:
    """Rows of the split in a file, and the row groups that have labelled ones."""
    total, groups = 0, []
    try:
        with _opened(dataset, shard) as file:
            image = file.schema_arrow.get_field_index("image")
            for index in range(file.num_row_groups):
                table = file.read_row_group(index, columns=["split", "label"])
                total += int(pc.sum(pc.equal(table["split"], split)).as_py() or 0)
                rows = int((_classes(dataset, split, table) != NO_LABEL).sum())
                if rows:
                    stored = file.metadata.row_group(index).column(image).total_uncompressed_size
                    groups.append(
                        Group(shard=shard, index=index, rows=rows, stored_bytes=stored * rows // table.num_rows)
                    )
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise damaged(dataset, shard, error) from error
    return total, groups


def _read(dataset: Dataset, split: str, cut: Cut) -> tuple[Any, NDArray[np.int32]]:
    """Encoded images (`pyarrow.ChunkedArray`) and class indices of the rows of a cut."""
    try:
        with _opened(dataset, cut.group.shard) as file:
            table = file.read_row_group(cut.group.index, columns=["split", "label", "image"])
    except (OSError, ValueError) as error:
        raise damaged(dataset, cut.group.shard, error) from error
    classes = _classes(dataset, split, table)
    places = np.flatnonzero(classes != NO_LABEL)
    if len(places) != cut.group.rows:
        changed = ValueError(f"{len(places)} labelled rows of the {split} split, {cut.group.rows} at the start")
        raise damaged(dataset, cut.group.shard, changed)
    chosen = places[cut.rows]
    return table["image"].take(pa.array(chosen)), classes[chosen]


def _opened(dataset: Dataset, shard: str) -> Any:
    filesystem, root = dataset.folder.filesystem()
    return pq.ParquetFile(f"{root}/images/{shard}", filesystem=filesystem, pre_buffer=True)


def _classes(dataset: Dataset, split: str, table: Any) -> NDArray[np.int32]:
    """int32 [rows of the table]: class index, NO_LABEL for rows without one and for those of other splits."""
    found = pc.index_in(table["label"], value_set=pa.array(dataset.classes, pa.string()))
    kept = pc.if_else(pc.equal(table["split"], split), found, None)
    return np.asarray(pc.fill_null(kept, NO_LABEL), np.int32)


def _shard_of(cuts: Sequence[Cut], place: int) -> str:
    return next(cut.group.shard for cut in cuts if place in cut.places)


def _parts(start: int, stop: int, count: int) -> list[range]:
    """A range in parts of equal length."""
    ends = [start + (stop - start) * i // count for i in range(count + 1)]
    return [range(low, high) for low, high in pairwise(ends)]
