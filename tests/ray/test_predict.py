"""Labels for new images: the same scores as an evaluation gives, and a row for everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import startup_ray as sr
from startup_ray.cli import main
from startup_ray.dataset import Dataset, read_split
from startup_ray.evaluate import evaluate
from startup_ray.job import EvaluationOptions
from startup_ray.runs import Run
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns, png
from tests.image_server import ImageServer
from tests.ray.finished import finished, job_for

ROWS = 700  # two full batches, and a tail


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished(Folder(str(tmp_path / "run")), job=job_for({"fetch": {"retries": 0}}))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images and two that are none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    images, _ = patterns(3)
    for i, image in enumerate(images):
        (folder / "deep" / f"{i}.png").write_bytes(png(image))
    (folder / "notes.txt").write_text("no image")
    (folder / "out").symlink_to("/etc/hostname")
    return folder


def evaluated(run: Run, dataset: Dataset, folder: Folder) -> dict[str, dict[str, Any]]:
    evaluate(run.folder, dataset, folder, options=EvaluationOptions())
    parts = [pq.read_table(folder.path(f"predictions/{name}")) for name in folder.list("predictions")]
    return {row["id"]: row for row in pa.concat_tables(parts).to_pylist()}


def test_scores_are_those_of_an_evaluation_bit_for_bit(run: Run, tmp_path: Path) -> None:
    """From a folder and from a manifest, whose order is another."""
    images, labels = patterns(ROWS)
    dataset = make_dataset(Folder(str(tmp_path / "dataset")), images, labels, ["test"] * ROWS)
    expected = evaluated(run, dataset, Folder(str(tmp_path / "evaluation")))
    bodies = dict(zip(*read_split(dataset, "test", ["id", "image"]).to_pydict().values(), strict=True))
    folder = tmp_path / "new"
    folder.mkdir()
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    with ImageServer() as server:
        server.bodies = bodies
        items = [{"id": name, "url": server.url(f"/body/{name}")} for name in reversed(bodies)]
        (tmp_path / "list.json").write_text(json.dumps(items))
        options = job_for({"fetch": {"allow_private": ["127.0.0.1/32"]}}).ingest
        by_manifest = sr.predict_images(run, [str(tmp_path / "list.json")], ingest=options)
    by_folder = sr.predict_images(run, [str(folder)])
    assert [row["id"] for row in by_manifest["predictions"]] == list(reversed(bodies))
    assert by_folder["rows"] == by_manifest["rows"] == {"ok": ROWS}
    assert by_folder["predictions"] == by_manifest["predictions"][::-1]
    for row in by_folder["predictions"]:
        want = expected[row["id"]]
        assert row["predicted"] == want["predicted"]
        assert row["score"] == max(want["scores"])
        assert sorted(score for _, score in row["top"]) == sorted(want["scores"])


def test_the_command_prints_a_row_per_item(capsys: pytest.CaptureFixture[str], run: Run, photos: Path) -> None:
    assert main(["predict", str(run.folder), str(photos), "--top", "2"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("deep/0.png", "ok"), ("deep/1.png", "ok"), ("deep/2.png", "ok"),
        ("notes.txt", "not_image"), ("out", "bad_item"),
    ]  # fmt: skip
    _, labels = patterns(3)
    assert [row["predicted"] for row in rows[:3]] == labels
    for row in rows[:3]:
        assert [len(row["top"]), row["top"][0]] == [2, [row["predicted"], row["score"]]]
        assert row["score"] >= row["top"][1][1]
    assert "5 items: 3 ok, 1 bad_item, 1 not_image\nlabelled " in err


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_file_of_predictions(capsys: pytest.CaptureFixture[str], run: Run, photos: Path, form: str) -> None:
    path = photos.parent / "new" / f"labels.{form}"
    assert main(["predict", str(run.folder), str(photos), "--out", str(path), "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["predictions"] == str(path)
    assert found["rows"] == {"ok": 3, "bad_item": 1, "not_image": 1}
    assert sum(found["classes"].values()) == 3
    rows = pq.read_table(path).num_rows if form == "parquet" else len(path.read_text().splitlines())
    assert rows == 5 + (form == "csv")


def test_nothing_labelled_is_exit_code_3_with_every_row(
    capsys: pytest.CaptureFixture[str], run: Run, tmp_path: Path
) -> None:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"id": "a", "url": "http://127.0.0.1:9/x.png"}\nno JSON\n')
    assert main(["predict", str(run.folder), str(manifest)]) == 3
    out, err = capsys.readouterr()
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["blocked_address", "bad_item"]
    assert "nothing could be labelled: 1 bad_item, 1 blocked_address" in err
    assert "--set ingest.fetch.allow_private" in err
    assert main(["predict", str(run.folder), str(manifest), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["error"]["kind"] == "DataError"
    assert [row["id"] for row in found["result"]["predictions"]] == ["a", ""]


def test_the_fetch_options_of_the_run_may_be_overridden(
    capsys: pytest.CaptureFixture[str], run: Run, tmp_path: Path
) -> None:
    with ImageServer() as server:
        manifest = tmp_path / "list.json"
        manifest.write_text(json.dumps([{"id": "a", "url": server.url("/image/1.png")}]))
        allowed = ["--set", "ingest.fetch.allow_private=[127.0.0.1/32]"]
        assert main(["predict", str(run.folder), str(manifest), "--json", *allowed]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"ok": 1}


def test_an_empty_folder(capsys: pytest.CaptureFixture[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(run.folder), str(tmp_path / "empty")]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-2] == f"error: {tmp_path / 'empty'}: nothing to label: no files here"


def test_logits_that_are_no_numbers_have_a_state_of_their_own(tmp_path: Path, photos: Path) -> None:
    broken = finished(Folder(str(tmp_path / "broken")), fill=float("nan"))
    found = sr.predict_images(broken, [str(photos)])
    assert found["rows"] == {"bad_scores": 3, "bad_item": 1, "not_image": 1}
    assert found["classes"] == {}


def test_nothing_is_left_on_this_machine(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    sr.predict_images(run, [str(photos)])
    assert list(place.iterdir()) == []
    assert not (tmp_path / "cache").exists()


def test_how_a_run_stores_its_images_changes_no_score(run: Run, photos: Path) -> None:
    expected = sr.predict_images(run, [str(photos)])["predictions"]
    for store in ("original", "raw"):
        options = job_for({"image": {"size": [8, 8], "channels": 1, "store": store}}).ingest
        assert sr.predict_images(run, [str(photos)], ingest=options)["predictions"] == expected
