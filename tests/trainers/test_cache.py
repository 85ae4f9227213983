from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from startup_ray.dataset import NO_LABEL, Dataset
from startup_ray.errors import StorageError
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from tests.fakes import make_dataset, patterns


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))


def _dataset(tmp_path: Path) -> tuple[Dataset, np.ndarray, list[str]]:
    images, labels = patterns(10)
    splits = ["train"] * 7 + ["val"] * 3
    return make_dataset(Folder(str(tmp_path / "d")), images, labels, splits, shards=3), images, labels


def test_rows_are_those_of_the_split_in_id_order(tmp_path: Path) -> None:
    dataset, images, labels = _dataset(tmp_path)
    rows = open_split(dataset, "val")
    assert rows.ids == ["00007", "00008", "00009"]
    np.testing.assert_array_equal(rows.images[..., 0], images[7:])
    assert [dataset.classes[i] for i in rows.labels] == labels[7:]


def test_colour_and_rows_without_a_label(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    dataset = make_dataset(Folder(str(tmp_path / "d")), images, ["a", None, "b"], ["test"] * 3)
    rows = open_split(dataset, "test")
    np.testing.assert_array_equal(rows.images, images)
    assert rows.labels.tolist() == [0, NO_LABEL, 1]


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    dataset, _, _ = _dataset(tmp_path)
    assert open_split(dataset, "test").images.shape == (0, 8, 8, 1)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "ids.json"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, name: str) -> None:
    dataset, images, _ = _dataset(tmp_path)
    path = open_split(dataset, "train").folder / name
    path.write_bytes(path.read_bytes()[:-5])
    rows = open_split(dataset, "train")
    np.testing.assert_array_equal(rows.images[..., 0], images[:7])
    assert len(rows.ids) == len(rows.labels) == 7


def test_a_whole_cache_is_used_as_it_is(tmp_path: Path) -> None:
    dataset, _, _ = _dataset(tmp_path)
    before = (open_split(dataset, "train").folder / "images.npy").stat().st_mtime_ns
    assert (open_split(dataset, "train").folder / "images.npy").stat().st_mtime_ns == before


def test_a_shard_that_lost_rows_is_an_error(tmp_path: Path) -> None:
    dataset, _, _ = _dataset(tmp_path)
    dataset.splits["train"] += 1
    with pytest.raises(StorageError, match=r"7 images in the train split, dataset\.json counts 8"):
        open_split(dataset, "train")


def test_progress_is_told_while_images_are_decoded_and_never_for_a_whole_cache(tmp_path: Path) -> None:
    images, labels = patterns(1203)
    dataset = make_dataset(Folder(str(tmp_path / "d")), images, labels, ["train"] * 1203, shards=2)
    told: list[tuple[int, int]] = []
    for _ in range(2):
        open_split(dataset, "train", lambda done, total: told.append((done, total)))
    assert told == [(500, 1203), (1000, 1203), (1203, 1203)]
