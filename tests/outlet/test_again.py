"""Exports done again, interrupted, recorded, deleted, and those of damaged datasets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import RunHeldError, StorageError
from startup_ray.inventory import delete, entries
from startup_ray.lease import hold
from startup_ray.outlet import export_dataset
from startup_ray.storage import open_folder
from tests.fakes import Clock, png
from tests.outlet.made import LIGHT, OPTIONS, export, files_in, hostile, make, write


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return hostile(tmp_path / "datasets" / "x")


def test_done_again_it_is_found(dataset: Dataset) -> None:
    first = export_dataset(dataset, to="webdataset")
    before = files_in(Path(first["export"]))
    times = [path.stat().st_mtime_ns for path in Path(first["export"]).iterdir()]
    assert export_dataset(dataset, to="webdataset") == first
    assert [path.stat().st_mtime_ns for path in Path(first["export"]).iterdir()] == times
    assert export_dataset(dataset, to="webdataset", fresh=True) == first
    assert files_in(Path(first["export"])) == before


@pytest.mark.parametrize("form", LIGHT)
def test_killed_and_done_again(form: str, tmp_path: Path) -> None:
    dataset = make(tmp_path / "x", [str(i) for i in range(90)], [str(i % 3) for i in range(90)])
    whole = files_in(export(dataset, form, out=str(tmp_path / "whole"), part_bytes=400))

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_dataset(dataset, to=form, out=str(tmp_path / "out"), part_bytes=400, on_progress=stop)
    begun = files_in(tmp_path / "out")
    assert "export.json" not in begun
    assert len(begun) > 3
    assert files_in(export(dataset, form, out=str(tmp_path / "out"), part_bytes=400)) == whole


def test_a_record_of_every_export(dataset: Dataset, tmp_path: Path) -> None:
    out = export(dataset, "folder", out=str(tmp_path / "out"), splits=["val"], clock=Clock(86_400.0))
    export_dataset(dataset, to="parquet")
    records = [path for path in (tmp_path / "datasets/x/exports").glob("*.json") if len(path.stem) == 8]
    assert len(records) == 2
    assert {
        "to": "folder",
        "out": str(out),
        "digest": dataset.digest,
        "splits": ["val"],
        "images": dataset.splits["val"],
        "made": "1970-01-02T00:00:00Z",
    } in [json.loads(path.read_text()) for path in records]
    before = {path: path.read_bytes() for path in records}
    records[0].unlink()  # as when the dataset was made anew
    for options in ({"to": "folder", "out": str(out), "splits": ["val"]}, {"to": "parquet"}):
        export_dataset(dataset, **options, clock=Clock(86_400.0))
    assert set(before) == {path for path in records if path.exists()}
    assert records[1].read_bytes() == before[records[1]]


def test_a_dataset_goes_with_its_exports(dataset: Dataset, tmp_path: Path) -> None:
    export_dataset(dataset, to="webdataset")
    found = entries(str(tmp_path))
    assert [entry.name for entry in delete(found, found)] == ["x"]
    assert not (tmp_path / "datasets/x").exists()


def test_a_dataset_at_work_is_left_alone(dataset: Dataset) -> None:
    with hold(dataset.folder), pytest.raises(RunHeldError):
        export_dataset(dataset, to="folder")
    assert not dataset.folder.exists("exports")


def test_a_damaged_dataset(dataset: Dataset) -> None:
    shard = Path(dataset.folder.path("images/1.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StorageError, match="cannot read the dataset") as caught:
        export_dataset(dataset, to="webdataset")
    assert caught.value.where.endswith("images/1.parquet")


def test_a_damaged_image(tmp_path: Path) -> None:
    made = {"sha256": "0" * 64, "label": None, "split": "train", "width": 2, "height": 2, "own": None}
    rows = [made | {"id": "a", "image": png(np.zeros((6, 5, 3), np.uint8))}, made | {"id": "b", "image": b"?"}]
    with pytest.raises(StorageError, match="no known format"):
        export_dataset(write(open_folder(str(tmp_path / "x")), rows, OPTIONS), to="folder")


def test_fewer_images_than_are_counted(dataset: Dataset) -> None:
    shards = dataset.shards[:1]
    with pytest.raises(StorageError, match=r"dataset\.json counts"):
        export_dataset(Dataset(**(vars(dataset) | {"shards": shards})), to="webdataset")
