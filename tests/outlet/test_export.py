"""Exported and read back, a dataset is what it was. What needs TensorFlow to be read is in `test_tensorflow.py`."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from startup_ray.dataset import SPLITS, Dataset
from startup_ray.job import ImageOptions
from startup_ray.outlet import export_dataset
from startup_ray.outlet.folder import COLUMNS
from startup_ray.storage import open_folder
from tests.outlet.made import LIGHT, content, export, files_in, hostile, make, write
from tests.outlet.reading import READ, images_in, of_parquet, pixels


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return hostile(tmp_path / "datasets" / "x")


def require_same(found: list[dict[str, Any]], dataset: Dataset) -> None:
    wanted = content(dataset)
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert {name: row[name] for name in other} == other
        assert row["index"] == (-1 if other["label"] is None else dataset.classes.index(other["label"]))


@pytest.mark.parametrize("form", LIGHT)
@pytest.mark.parametrize("part_bytes", [1, 9_500, 10**9])
def test_read_back_it_is_the_dataset(dataset: Dataset, form: str, part_bytes: int) -> None:
    require_same(READ[form](export(dataset, form, part_bytes=part_bytes)), dataset)


@pytest.mark.parametrize("form", LIGHT)
@pytest.mark.parametrize(("store", "channels"), [("raw", 1), ("raw", 3), ("raw", 4), ("original", 3), ("jpeg", 3)])
def test_however_images_are_stored(tmp_path: Path, form: str, store: Any, channels: Any) -> None:
    options = ImageOptions(size=(6, 5), channels=channels, store=store)
    dataset = make(tmp_path / "x", ["b", "a", "c", "d", "e"], ["1", "2", None, "1", "10"], options)
    out = export(dataset, form)
    if store == "jpeg" or (form == "webdataset" and channels != 3):  # the package makes RGB of everything
        return require_stored(out, dataset, form)
    return require_same(READ[form](out), dataset)


def require_stored(out: Path, dataset: Dataset, form: str) -> None:
    """Encoded images leave as they are."""
    found = set(images_in(out, form))
    stored = [pq.read_table(dataset.folder.path(f"images/{name}"))["image"].to_pylist() for name in dataset.shards]
    if dataset.image.store == "raw":
        assert sorted(pixels(data) for data in found) == sorted(row["image"] for row in content(dataset))
    else:
        assert found == {image for shard in stored for image in shard}


def test_raw_pixels_that_look_like_a_bitmap(tmp_path: Path) -> None:
    options = ImageOptions(size=(2, 2), channels=3, store="raw")
    made = {"sha256": "0" * 64, "label": None, "split": "train", "width": 2, "height": 2, "own": None}
    rows = [made | {"id": str(i), "image": b"BM" + bytes([i] * 10)} for i in range(4)]
    dataset = write(open_folder(str(tmp_path / "x")), rows, options)
    require_same(of_parquet(export(dataset, "parquet")), dataset)


def test_images_of_their_own_sizes_and_formats(tmp_path: Path) -> None:
    options = ImageOptions(resize="no", store="original")
    made = {"label": "x", "split": "train", "width": 2, "height": 2, "own": None}
    streams = []
    for i, kind in enumerate(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"], 1):
        streams.append(io.BytesIO())
        Image.new("RGB", (i, 3)).save(streams[-1], kind)
    rows = [made | {"id": str(i), "sha256": f"{i:064}", "image": s.getvalue()} for i, s in enumerate(streams)]
    out = export(write(open_folder(str(tmp_path / "x")), rows, options), "folder")
    endings = {path.rsplit(".", 1)[1] for path in files_in(out / "images")}
    assert endings == {"jpg", "png", "webp", "gif", "bmp", "tiff"}
    assert set(files_in(out / "images").values()) == {stream.getvalue() for stream in streams}


@pytest.mark.parametrize("form", LIGHT)
def test_the_same_dataset_gives_the_same_bytes(dataset: Dataset, form: str, tmp_path: Path) -> None:
    one, other = (export(dataset, form, out=str(tmp_path / name), part_bytes=2_000) for name in ("a", "b"))
    assert files_in(one) == files_in(other)


def test_keys_of_a_tar_are_no_ids(dataset: Dataset) -> None:
    out = export(dataset, "webdataset")
    with tarfile.open(out / "train-000000.tar") as tar:
        names = tar.getnames()
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}
    assert names[:4] == ["000000000.png", "000000000.cls", "000000000.json", "000000001.png"]


def test_names_with_a_total(dataset: Dataset) -> None:
    out = export(dataset, "parquet", part_bytes=1_500)
    for split in SPLITS:
        names = sorted(path.name for path in (out / "data").glob(f"{split}-*"))
        assert names == [f"{split}-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
        assert len(names) > 1


def test_huggingface_reads_the_features(dataset: Dataset) -> None:
    path = next((export(dataset, "parquet") / "data").glob("train-*"))
    schema = pq.read_schema(path)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": list(dataset.classes), "_type": "ClassLabel"}
    assert list(features) == schema.names
    assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(schema.field("label").type) == "int64"


def test_only_some_splits(dataset: Dataset) -> None:
    found = export_dataset(dataset, to="folder", splits=["test", "val"])
    assert found["splits"] == {split: dataset.splits[split] for split in ("val", "test")}
    assert {path.name for path in Path(found["export"], "images").iterdir()} == {"val", "test"}
    assert found["export"].endswith("-val-test")
    assert found["files"] == sum(found["splits"].values()) + 1


def test_export_json_tells_of_every_file(dataset: Dataset) -> None:
    out = export(dataset, "webdataset", part_bytes=500)
    whole = json.loads((out / "export.json").read_text())
    there = {name: len(data) for name, data in files_in(out).items() if name != "export.json"}
    assert {file["file"]: file["bytes"] for file in whole["files"]} == there
    assert (whole["count"], whole["bytes"]) == (len(there), sum(there.values()))
    assert sum(file["images"] for file in whole["files"]) == dataset.items
    assert whole["made_by"].startswith("startup_ray ")


def test_columns_of_the_list(dataset: Dataset) -> None:
    head = (export(dataset, "folder") / "labels.csv").read_text().splitlines()[0]
    assert tuple(head.split(",")) == COLUMNS
