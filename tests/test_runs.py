from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from startup_ray import runs
from startup_ray.errors import StorageError
from startup_ray.job import Job
from startup_ray.storage import Folder


def job(**sections: Any) -> Job:
    ingest = {"manifest": "m.json"} | sections.pop("ingest", {})
    return Job.model_validate({"name": "x", "ingest": ingest, **sections})


def run_key(job: Job, digest: str = "sha256:0") -> str:
    return runs.run_key(digest, job.ingest.image, job.model, job.training, job.seed)


@pytest.mark.parametrize(
    "changed",
    [
        {"manifest": "other.json"},
        {"image": {"size": [32, 32]}},
        {"split": {"val": 0.2}},
        {"columns": {"url": "link"}},
        {"columns": {"sha256": None}},
    ],
)
def test_a_dataset_is_known_by_manifest_image_and_split(changed: dict[str, Any]) -> None:
    assert runs.dataset_key(job(ingest=changed).ingest) != runs.dataset_key(job().ingest)


@pytest.mark.parametrize("same", [{"fetch": {"retries": 9}}, {"min_success": 0.1}, {"columns": {"url": "url"}}])
def test_how_a_dataset_is_fetched_does_not_change_its_key(same: dict[str, Any]) -> None:
    assert runs.dataset_key(job(ingest=same).ingest) == runs.dataset_key(job().ingest)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"model": {"dense": 3}}, {"training": {"epochs": 3}}, {"ingest": {"image": {"size": [32, 32]}}}],
)
def test_a_run_is_known_by_what_decides_its_weights(changed: dict[str, Any]) -> None:
    assert run_key(job(**changed)) != run_key(job())


@pytest.mark.parametrize("same", [{"scaling": {"workers": 9}}, {"storage": "s"}, {"evaluation": {"average": "micro"}}])
def test_where_a_run_is_computed_does_not_change_its_key(same: dict[str, Any]) -> None:
    assert run_key(job(**same)) == run_key(job())


def test_keys_are_eight_hex_digits_and_stay_the_same() -> None:
    assert runs.dataset_key(job(ingest={"manifest": "http://h/m.json"}).ingest) == "6b240f32"
    assert run_key(job()) == "41e64679"


def test_a_local_manifest_counts_by_its_absolute_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs.location_of("m.json") == str(tmp_path / "m.json")
    assert runs.location_of("sample:digits") == "sample:digits"


def test_fresh_runs_are_numbered_and_the_newest_counts(tmp_path: Path) -> None:
    series = runs.run_series(str(tmp_path), "x", "k")
    assert series.newest().name == "x-k-1"
    names = []
    for _ in range(3):
        folder = series.next()
        folder.put_whole("job.yaml", b"")
        names.append(folder.name)
    assert names == ["x-k-1", "x-k-2", "x-k-3"]
    assert series.newest().name == "x-k-3"
    assert runs.run_series(str(tmp_path), "x", "other").newest().name == "x-other-1"


def test_the_newest_finished_run_may_stand_before_one_that_was_killed(tmp_path: Path) -> None:
    series = runs.run_series(str(tmp_path), "x", "k")
    assert series.newest_with(runs.EXIT) is None
    for name in (runs.EXIT, runs.EXIT, "job.yaml"):
        series.next().put_whole(name, b"{}")
    found = series.newest_with(runs.EXIT)
    assert found is not None
    assert found.name == "x-k-2"


def test_the_first_dataset_has_no_number(tmp_path: Path) -> None:
    series = runs.dataset_series(str(tmp_path), "x", "k")
    for name in ("x-k", "x-k-2", "x-k-3"):
        assert series.next().name == name
        series.next().put_whole("a", b"")
        assert series.newest().name == name


def test_a_damaged_document_names_the_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.put_whole(runs.EXIT, b"{")
    with pytest.raises(StorageError, match=r"exit\.json: this file is damaged"):
        runs.read_run(folder)


def test_history_joins_the_parts_and_the_later_attempt_counts(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    parts = {"0001": [(1, 0.5), (2, 0.4)], "0002": [(2, 0.3), (3, 0.2)]}
    for name, rows in parts.items():
        lines = [json.dumps({"epoch": epoch, "train/loss": loss}) for epoch, loss in rows]
        folder.put_whole(f"metrics/{name}.jsonl", "\n".join(lines).encode())
    assert [(row["epoch"], row["train/loss"]) for row in runs.read_history(folder)] == [(1, 0.5), (2, 0.3), (3, 0.2)]


def test_a_run_is_finished_once_its_document_is_there(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert not runs.read_run(folder).is_finished
    runs.put_json(folder, runs.EXIT, {"run": str(folder)})
    assert runs.read_run(folder).document == {"run": str(folder)}
