"""What a worker reads of a dataset's shards."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import StorageError
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.shards import find_groups, read
from startup_ray.trainers.windows import Cut, Order
from tests.fakes import make_dataset, patterns

ROWS, BATCH = 200, 8


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Colour images in three shards, each of several row groups; every fifth row has no label."""
    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 7, 3), np.uint8)
    labels = [None if i % 5 == 0 else "abc"[i % 3] for i in range(ROWS)]
    splits = ["val" if i % 7 == 0 else "train" for i in range(ROWS)]
    dataset = make_dataset(Folder(str(tmp_path / "d")), images, labels, splits, shards=3)
    for name in dataset.shards:
        path = dataset.folder.path(f"images/{name}")
        pq.write_table(pq.read_table(path), path, row_group_size=25)
    return dataset


def order_of(dataset: Dataset, window_rows: int = 40) -> Order:
    return Order(groups=find_groups(dataset, "train"), global_batch=BATCH, seed=1, window_rows=window_rows)


def blocks(
    dataset: Dataset, cuts: list[Cut], *, rows: int = BATCH, threads: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of a window, two steps at a time."""
    held = read(dataset, "train", cuts, rows=rows, threads=threads)
    for first in range(0, held.steps, 2):
        yield held.decode(first, min(first + 2, held.steps))


def rows_of(dataset: Dataset, positions: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an epoch for the worker at these positions, joined."""
    order = order_of(dataset)
    cuts = [order.cut(window, positions) for window in order.windows(0)]
    parts = [part for cut in cuts for part in blocks(dataset, cut, rows=len(positions), threads=threads)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def test_labelled_rows_are_counted_by_row_group(dataset: Dataset) -> None:
    groups = find_groups(dataset, "train")
    assert len(groups) == 9
    assert sum(group.rows for group in groups) == sum(i % 5 != 0 and i % 7 != 0 for i in range(ROWS))
    assert all(group.stored_bytes > 0 for group in groups)


def test_images_and_labels_are_bit_for_bit_those_of_the_memory_mapped_split(dataset: Dataset) -> None:
    rows = open_split(dataset, "train")
    expected = {rows.images[i].tobytes(): int(rows.labels[i]) for i in np.flatnonzero(rows.labels >= 0)}
    images, labels = rows_of(dataset, np.arange(BATCH))
    assert images.shape == (len(expected) // BATCH, BATCH, 6, 7, 3)
    assert (str(images.dtype), str(labels.dtype)) == ("uint8", "int32")
    for image, label in zip(images.reshape(-1, 6, 7, 3), labels.ravel().tolist(), strict=True):
        assert expected.pop(image.tobytes()) == label
    assert len(expected) < BATCH


def test_workers_and_threads_change_no_row(dataset: Dataset) -> None:
    images, labels = rows_of(dataset, np.arange(BATCH))
    for positions in (np.arange(3), np.array([7, 2])):
        mine = rows_of(dataset, positions, threads=3)
        np.testing.assert_array_equal(mine[0], images[:, positions])
        np.testing.assert_array_equal(mine[1], labels[:, positions])


def test_pixels_are_made_a_block_at_a_time(tmp_path: Path) -> None:
    images, labels = patterns(2_000, size=30)
    images[:] = 0  # encoded they are next to nothing
    dataset = make_dataset(Folder(str(tmp_path / "d")), images, labels, ["train"] * 2_000)
    order = order_of(dataset, window_rows=2_000)
    cuts = order.cut(next(order.windows(0)), np.arange(BATCH))
    tracemalloc.start()
    try:
        for _ in blocks(dataset, cuts):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 2


@pytest.mark.parametrize("harm", ["cut", "gone", "cell"])
def test_a_damaged_shard_is_named(dataset: Dataset, harm: str) -> None:
    order = order_of(dataset, window_rows=ROWS)
    path = Path(dataset.folder.path(f"images/{dataset.shards[1]}"))
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    else:
        table = pq.read_table(path)
        bodies = [b"\x89PNG, or so" if i == 60 else body for i, body in enumerate(table["image"].to_pylist())]
        pq.write_table(
            table.set_column(table.schema.get_field_index("image"), "image", [bodies]), path, row_group_size=25
        )
    cuts = order.cut(next(order.windows(0)), np.arange(BATCH))
    with pytest.raises(StorageError) as caught:
        list(blocks(dataset, cuts))
    assert caught.value.where == str(path)
    assert caught.value.message.startswith("cannot read the dataset: ")
    assert "\n" not in caught.value.message
    if harm != "cell":
        with pytest.raises(StorageError, match="000001"):
            find_groups(dataset, "train")


def test_shards_that_lost_rows_are_an_error(dataset: Dataset) -> None:
    order = order_of(dataset)
    dataset.splits["train"] += 1
    with pytest.raises(StorageError, match=r"171 images in the train split, dataset\.json counts 172"):
        find_groups(dataset, "train")
    path = dataset.folder.path(f"images/{dataset.shards[0]}")
    pq.write_table(pq.read_table(path).slice(5), path, row_group_size=25)
    cuts = [cut for window in order.windows(0) for cut in order.cut(window, np.arange(BATCH))]
    with pytest.raises(StorageError, match="at the start"):
        read(dataset, "train", cuts, rows=BATCH)
