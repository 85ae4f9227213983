"""Real models in real formats, loaded again by TensorFlow and onnxruntime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import startup_ray as sr
from startup_ray.cli import main
from startup_ray.dataset import Dataset
from startup_ray.errors import StartupRayError, UsageError
from startup_ray.export import FORMATS, export
from startup_ray.export.formats import Original
from startup_ray.runs import Run, read_run
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns, png
from tests.ray.finished import CLASSES, finished, job_for
from tests.s3 import KEYS, s3_server

IMAGE = job_for().ingest.image
ALL = ("keras", "savedmodel", "onnx")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    images, labels = patterns(90)
    return make_dataset(Folder(str(tmp_path / "dataset")), images, labels, ["train"] * 50 + ["test"] * 40)


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset) -> Run:
    return finished(Folder(str(tmp_path / "run")), dataset)


def rows_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["format"]: row for row in found["exports"]}


def test_each_format_says_what_the_model_says(capsys: pytest.CaptureFixture[str], run: Run, dataset: Dataset) -> None:
    """By the command, and then loaded by this test on its own."""
    import keras
    import onnxruntime
    import tensorflow as tf

    assert main(["export", str(run.folder), "--samples", "32", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert (found["run"], found["samples"]) == (str(run.folder), 32)
    assert found["images"] == f"the test split of {dataset.folder}"
    place = Path(str(run.folder)) / "exports"
    assert [row["format"] for row in found["exports"]] == list(ALL)
    for row in found["exports"]:
        assert row["max_abs_diff"] < 1e-4
        assert row["same_classes"]
        assert row["latency_ms"].keys() == {"1", "32"}
        assert all(value > 0 for value in row["latency_ms"].values())
        files = [path for path in [Path(row["path"]), *Path(row["path"]).rglob("*")] if path.is_file()]
        assert row["bytes"] == sum(path.stat().st_size for path in files)
    assert {path.name for path in place.iterdir()} == {"model.keras", "savedmodel", "model.onnx", "classes.json"}
    assert json.loads((place / "classes.json").read_text()) == list(CLASSES)

    images = patterns(5, seed=3)[0][..., None].astype(np.float32)
    expected = keras.saving.load_model(place / "model.keras")(images, training=False).numpy()
    signature = tf.saved_model.load(place / "savedmodel").signatures["serving_default"]
    (logits,) = onnxruntime.InferenceSession(place / "model.onnx").run(["logits"], {"images": images})
    assert np.abs(signature(images=tf.constant(images))["logits"].numpy() - expected).max() < 1e-4
    assert np.abs(logits - expected).max() < 1e-4
    assert (place / "model.keras").read_bytes() == run.folder.read("model.keras")


def test_the_documentation_loads_each(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:] if "startup_ray" not in part[:40]]
    sr.export_model(run, out=str(tmp_path / "out"))
    monkeypatch.chdir(tmp_path / "out")
    found = []
    for block in blocks:
        names = {"images": patterns(5, seed=3)[0][..., None].astype(np.float32)}
        exec(block, names)  # noqa: S102 - our own words
        found.append(np.asarray(names["logits"]))
    assert len(found) == 3
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert found[0] == pytest.approx(found[2], abs=1e-4)


def test_people_get_a_table(capsys: pytest.CaptureFixture[str], run: Run, tmp_path: Path) -> None:
    assert main(["export", str(run.folder), "--to", "onnx, keras", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == ["format", "onnx", "keras"]
    assert lines[1][-1] == str(tmp_path / "out" / "model.onnx")
    assert err.startswith("compared on 40 images: the test split of")


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_of_mixed_precision(tmp_path: Path, dataset: Dataset, nested: bool) -> None:
    mixed = finished(Folder(str(tmp_path / "mixed")), dataset, policy="mixed_bfloat16", nested=nested)
    found = rows_of(sr.export_model(mixed, samples=40))
    assert found["savedmodel"]["max_abs_diff"] < 1e-4
    assert found["onnx"]["max_abs_diff"] > 1e-4, "it computes in float32, which is not what bfloat16 gives"
    assert all(row["same_classes"] for row in found.values())


def test_without_a_dataset_images_are_random_and_the_same(tmp_path: Path) -> None:
    alone = finished(Folder(str(tmp_path / "alone")))
    first, second = (sr.export_model(alone, to=["onnx"], samples=9) for _ in range(2))
    assert first["images"] == "random pixels: the run's dataset is gone"
    assert first["samples"] == 9
    assert first["exports"][0]["max_abs_diff"] == second["exports"][0]["max_abs_diff"]


def test_an_export_that_says_something_else_is_deleted_and_told(run: Run, tmp_path: Path) -> None:
    """A writer that writes another model."""
    import keras

    def write(original: Original, path: Path) -> None:
        other = keras.models.clone_model(original.model)
        other.set_weights([weight * 1.01 for weight in original.model.get_weights()])
        other.save(path)

    out = Folder(str(tmp_path / "out"))
    wrong = replace(FORMATS["keras"], name="wrong", target="wrong.keras", write=write)
    with pytest.raises(StartupRayError, match=r"differ from the model by more than 0\.001 of its largest") as caught:
        export(run.folder, out, image=IMAGE, formats=[wrong, FORMATS["onnx"]])
    assert caught.value.exit_code == 1
    assert out.list() == ["classes.json", "model.onnx"]
    assert caught.value.result is not None
    assert rows_of(caught.value.result)["wrong"]["max_abs_diff"] > 0.001


def test_what_a_converter_cannot_write_is_one_line(run: Run, tmp_path: Path) -> None:
    def write(original: Original, path: Path) -> None:
        path.write_bytes(b"no ONNX at all")

    out = Folder(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="this model cannot be written as onnx: ") as caught:
        export(run.folder, out, image=IMAGE, formats=[replace(FORMATS["onnx"], write=write)])
    assert "\n" not in caught.value.message
    assert out.list() == ["classes.json"]


def test_a_former_export_is_replaced_whole(run: Run, tmp_path: Path) -> None:
    left = tmp_path / "out" / "savedmodel" / "variables" / "variables.data-00001-of-00002"
    left.parent.mkdir(parents=True)
    left.write_text("of another model")
    sr.export_model(run, to=["savedmodel"], out=str(tmp_path / "out"))
    assert not left.exists()


def test_logits_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    broken = finished(Folder(str(tmp_path / "broken")), fill=float("nan"))
    with pytest.raises(UsageError, match="no numbers"):
        sr.export_model(broken, to=["keras"])


def test_a_run_is_never_written_over(run: Run) -> None:
    before = run.folder.read("model.keras")
    with pytest.raises(UsageError, match="folder of a run"):
        sr.export_model(run, out=str(run.folder))
    assert run.folder.read("model.keras") == before


def test_on_an_object_store(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run lies there, and so do its exports, where nobody says otherwise."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "photo").write_bytes(png(patterns(1)[0][0]))
    with s3_server() as server:
        folder = server.folder("run")
        for name in run.folder.list():
            folder.put_whole(name, run.folder.read(name))
        found = sr.export_model(read_run(folder))
        assert [row["max_abs_diff"] < 1e-4 for row in found["exports"]] == [True] * 3
        assert found["exports"][2]["path"] == folder.path("exports/model.onnx")
        assert folder.list("exports") == ["classes.json", "model.keras", "model.onnx", "savedmodel"]
        assert folder.list("exports/savedmodel/variables") == ["variables.data-00000-of-00001", "variables.index"]
        out = f"{folder.path('labels.csv')}"
        assert sr.predict_images(read_run(folder), [str(tmp_path / "photo")], out=out)["rows"] == {"ok": 1}
        assert folder.read("labels.csv").startswith(b"id,status,predicted,score,top,reason\r\n")
