"""Exports that TensorFlow and Keras read, read by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import UsageError
from startup_ray.outlet import export_dataset
from tests.outlet.made import content, files_in, hostile

pytestmark = pytest.mark.ray  # TensorFlow alone takes seconds


def records(out: Path, split: str) -> list[dict[str, Any]]:
    """By the features that stand beside the files."""
    import tensorflow as tf

    told = json.loads((out / "features.json").read_text())["features"]
    spec = {name: tf.io.FixedLenFeature(about["shape"], about["dtype"]) for name, about in told.items()}
    paths = [str(path) for path in sorted(out.glob(f"{split}-*.tfrecord"))]
    assert [path.rpartition("-of-")[2] for path in paths] == [f"{len(paths):05d}.tfrecord"] * len(paths)
    parsed = tf.data.TFRecordDataset(paths).map(lambda record: tf.io.parse_single_example(record, spec))
    return list(parsed.as_numpy_iterator())


def test_tfrecords_read_back_are_the_dataset(tmp_path: Path) -> None:
    import tensorflow as tf

    dataset = hostile(tmp_path / "x")
    out = Path(export_dataset(dataset, to="tfrecord", part_bytes=2_000)["export"])
    found = [row | {"split": split} for split in ("train", "val", "test") for row in records(out, split)]
    wanted = content(dataset)
    assert [row["image/id"].decode() for row in found] == [row["id"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert tf.io.decode_image(row["image/encoded"]).numpy().tolist() == other["image"]
        assert (row["image/format"], row["image/channels"]) == (b"png", 3)
        assert (row["image/height"], row["image/width"]) == (6, 5)
        assert row["image/class/text"].decode() == (other["label"] or "")
        assert row["image/class/label"] == (dataset.classes.index(other["label"]) if other["label"] else -1)
        assert (row["split"], row["image/sha256"].decode()) == (other["split"], other["sha256"])
        assert json.loads(row["image/own"] or b"{}") == other["own"]
    again = Path(export_dataset(dataset, to="tfrecord", part_bytes=2_000, out=str(tmp_path / "again"))["export"])
    assert files_in(again) == files_in(out)


def test_keras_reads_the_folder(tmp_path: Path) -> None:
    import keras

    dataset = hostile(tmp_path / "x")
    out = Path(export_dataset(dataset, to="folder")["export"])
    folders = json.loads((out / "export.json").read_text())["class_folders"]
    labelled = [row for row in content(dataset) if row["split"] == "train" and row["label"] is not None]
    present = {row["label"] for row in labelled}
    names = [folder for folder, label in zip(folders, dataset.classes, strict=True) if label in present]
    found = keras.utils.image_dataset_from_directory(
        out / "images/train", class_names=names, image_size=dataset.image_shape[:2], shuffle=False, batch_size=1,
        verbose=False,
    )  # fmt: skip
    of_keras = {(names[int(label[0])], str(image[0].numpy().astype("uint8").tolist())) for image, label in found}
    assert of_keras == {(folders[dataset.classes.index(row["label"])], str(row["image"])) for row in labelled}
    assert len(of_keras) == len(labelled)


def test_on_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.s3 import KEYS, s3_server

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    dataset = hostile(tmp_path / "x")
    with s3_server() as server:
        place = server.folder("exports/x")
        for form, first in (("webdataset", "test-000000.tar"), ("folder", "labels.csv")):
            local = Path(export_dataset(dataset, to=form)["export"])
            out = place / form
            found = export_dataset(dataset, to=form, out=out.uri)
            assert found["export"] == out.uri
            assert out.read(first) == (local / first).read_bytes()
            assert export_dataset(dataset, to=form, out=out.uri) == found
        there = hostile(server.folder("datasets/x"))
        found = export_dataset(there, to="webdataset")
        assert found["export"] == (there.folder / "exports" / f"webdataset-{there.digest[7:15]}").uri
        assert len([name for name in there.folder.list("exports") if name.endswith(".json")]) == 1
        with pytest.raises(UsageError, match="within the folder of the dataset"):
            export_dataset(there, to="webdataset", out=(there.folder / "images/y").uri)
