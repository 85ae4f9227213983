"""One pass over the images of a dataset: what is needed of each to judge all.

    found = read_survey(dataset)
    found.brightness[found.contrast < 1]

Images are decoded batch by batch, in threads; some hundred bytes of each stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from startup_ray.dataset import SPLITS, Dataset, damaged
from startup_ray.dataset_tables import image_batches
from startup_ray.likeness import NOTHING, Sketchbook, picture_of, small
from startup_ray.progress import Part, Progress, ignore
from startup_ray.stored import DAMAGED, pixels_of

BATCH = 256
"""Images decoded together."""
_SMALL = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "label", "split")),
        *((name, pa.int32()) for name in ("width", "height")),
    ]
)
"""Columns beside the image, which stay in memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """N images in the order of the dataset's shards."""

    ids: pa.Array
    """string [N]"""
    labels: NDArray[np.int64]
    """[N], places in the dataset's classes; -1 without a label."""
    splits: NDArray[np.int64]
    """[N], places in `SPLITS`."""
    widths: NDArray[np.int64]
    """[N], of the originals in pixels; 0 where it is not known, and `heights` too."""
    heights: NDArray[np.int64]
    brightness: NDArray[np.float64]
    """[N], mean over pixels and channels in [0, 255]; NaN of what is damaged."""
    contrast: NDArray[np.float64]
    """[N], standard deviation of the channel in which it is largest; NaN of what is damaged."""
    firsts: NDArray[np.int64]
    """[N], the image that each resembles, or its own place; see `likeness`."""

    def __len__(self) -> int:
        return len(self.labels)


def read_survey(dataset: Dataset, on_progress: Callable[[Progress], None] = ignore) -> Survey:
    """Read and decode every image once.

    Raises:
        StorageError: a shard cannot be read.
    """
    tables, looks = [], []
    total, done = sum(dataset.splits.values()), 0
    with Sketchbook() as book, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, batch in image_batches(dataset, [*_SMALL.names, "image"], rows=BATCH):
            tables.append(batch.select(_SMALL.names))
            found = list(pool.map(partial(_look, dataset), batch["image"].to_pylist()))
            book.add(np.stack([sketch for _, _, sketch in found]))
            looks.append(np.array([(mean, spread) for mean, spread, _ in found]))
            done += len(found)
            on_progress(Part(done, total, "images"))
        firsts = book.firsts()
    table = pa.Table.from_batches(tables, _SMALL)
    seen = np.concatenate([np.zeros((0, 2)), *looks])
    return Survey(
        ids=table["id"].combine_chunks(),
        labels=_places(table["label"], dataset.classes),
        splits=_places(table["split"], SPLITS),
        widths=_numbers(table["width"]),
        heights=_numbers(table["height"]),
        brightness=seen[:, 0],
        contrast=seen[:, 1],
        firsts=firsts,
    )


def pixels_at(dataset: Dataset, places: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Place and uint8 [height, width, channels] of some images, those that are damaged left out.

    Only row groups that hold one are read.
    """
    wanted, start = np.unique(np.asarray(places, np.int64)), 0
    for shard in _shards(dataset):
        for group in range(shard.num_row_groups):
            stop = start + shard.metadata.row_group(group).num_rows
            here = wanted[(wanted >= start) & (wanted < stop)]
            images = shard.read_row_group(group, ["image"])["image"].take(here - start) if len(here) else []
            for place, encoded in zip(here.tolist(), images, strict=True):
                try:
                    yield place, pixels_of(encoded.as_py(), dataset.image)
                except DAMAGED:
                    continue
            start = stop


def _shards(dataset: Dataset) -> Iterator[Any]:
    filesystem, root = dataset.folder.filesystem()
    for name in dataset.shards:
        try:
            yield pq.ParquetFile(f"{root}/images/{name}", filesystem=filesystem)
        except (OSError, ValueError) as error:
            raise damaged(dataset, name, error) from error


def _look(dataset: Dataset, encoded: bytes) -> tuple[float, float, NDArray[np.uint8]]:
    """Brightness, contrast, and the sketch of an image."""
    try:
        picture = picture_of(pixels_of(encoded, dataset.image))
    except DAMAGED:
        return np.nan, np.nan, NOTHING
    counts = np.array(picture.histogram(), np.float64).reshape(-1, 256)
    counts /= counts.sum(axis=1, keepdims=True)
    values = np.arange(256.0)
    means = counts @ values
    spreads = np.sqrt(np.maximum(counts @ values**2 - means**2, 0))
    return float(means.mean()), float(spreads.max()), small(picture)


def _places(column: Any, names: Sequence[str]) -> NDArray[np.int64]:
    found = pc.index_in(column, pa.array(names, pa.string())).fill_null(-1)
    return np.asarray(found.to_numpy(), np.int64)


def _numbers(column: Any) -> NDArray[np.int64]:
    return np.asarray(column.fill_null(0).to_numpy(), np.int64)
