"""`startup-ray runs` on a storage made by hand; `doctor` with a Ray is in tests/ray/test_doctor.py."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from startup_ray.lease import hold
from startup_ray.storage import Folder
from tests.test_cli import document, run

AGES_D = {"runs/old-1": 40, "runs/cut-1": 2, "datasets/pets-1": 41, "datasets/alone-1": 1}


def put(root: Path, name: str, text: str = "{}") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    pets = json.dumps({"dataset": f"{root}/datasets/pets-1", "digest": "sha256:00"})
    for name, text in {
        "runs/old-1/job.yaml": "name: old\n",
        "runs/old-1/exit.json": "{}",
        "runs/old-1/dataset.json": pets,
        "runs/old-1/checkpoints/9/variables.npz": "x" * 1000,
        "runs/cut-1/job.yaml": "name: cut\n",
        "runs/cut-1/dataset.json": pets,
        "runs/notes/readme.txt": "not ours",
        "datasets/pets-1/dataset.json": "{}",
        "datasets/pets-1/images/0.parquet": "x" * 2000,
        "datasets/alone-1/chunks/0.json": "{}",
        "elsewhere.txt": "not ours",
    }.items():
        put(root, name, text)
    for folder, days in AGES_D.items():
        then = time.time() - days * 86400
        for path in [root / folder, *(root / folder).rglob("*")]:
            os.utime(path, (then, then))
    return root


def names(found: dict[str, Any], key: str = "entries") -> list[str]:
    return [entry["name"] for entry in found[key]]


def test_all_of_ours_is_listed_and_nothing_else(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    code, found = document(capsys, "runs", "--storage", str(storage))
    assert code == 0
    assert [(entry["kind"], entry["name"], entry["state"]) for entry in found["entries"]] == [
        ("dataset", "alone-1", "stopped"),
        ("dataset", "pets-1", "finished"),
        ("run", "cut-1", "stopped"),
        ("run", "old-1", "finished"),
    ]
    assert found["entries"][1]["bytes"] == 2002
    assert found["entries"][3]["dataset"] == str(storage / "datasets/pets-1")


def test_people_get_a_table(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    code, out, _ = run(capsys, "runs", "list", "--storage", str(storage))
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["kind", "name", "state", "size", "age"]
    assert rows[2] == ["dataset", "pets-1", "finished", "2.0", "kB", "41", "d"]


def test_an_empty_storage_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "runs", "--storage", str(tmp_path / "none"))[:2] == (0, "nothing here\n")


def test_state_and_age_choose(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    at = ("--storage", str(storage))
    assert names(document(capsys, "runs", *at, "--state", "stopped")[1]) == ["alone-1", "cut-1"]
    assert names(document(capsys, "runs", *at, "--older-than", "36h")[1]) == ["pets-1", "cut-1", "old-1"]
    assert names(document(capsys, "runs", *at, "--older-than", "5w", "--state", "finished")[1]) == ["pets-1", "old-1"]


def test_a_run_is_deleted_with_all_in_it(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    code, found = document(capsys, "runs", "delete", "old-1", "--yes", "--storage", str(storage))
    assert code == 0
    assert names(found, "deleted") == ["old-1"]
    assert sorted(path.name for path in (storage / "runs").iterdir()) == ["cut-1", "notes"]


def test_a_dataset_goes_only_together_with_its_runs(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    at = ("--storage", str(storage), "--yes")
    code, found = document(capsys, "runs", "delete", "pets-1", *at)
    assert code == 2
    assert found["error"]["message"] == "pets-1 is the dataset of cut-1, old-1"
    assert (storage / "datasets/pets-1/dataset.json").exists()
    code, found = document(capsys, "runs", "delete", "pets-1", "old-1", "cut-1", *at)
    assert code == 0
    assert sorted(path.name for path in storage.glob("*/*")) == ["alone-1", "notes"]
    assert (storage / "runs/notes/readme.txt").exists()


def test_what_is_being_written_is_not_deleted(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    with hold(Folder(str(storage / "runs/cut-1"))):
        code, found = document(capsys, "runs", "--storage", str(storage), "--state", "running")
        assert names(found) == ["cut-1"]
        assert f"process {os.getpid()} " in found["entries"][0]["owner"]
        code, found = document(capsys, "runs", "delete", "old-1", "cut-1", "--yes", "--storage", str(storage))
    assert code == 5
    assert found["error"]["kind"] == "RunHeldError"
    assert (storage / "runs/old-1/exit.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["delete", "--yes"], "nothing is chosen"),
        (["delete", "old"], "called 'old'"),
        (["delete", "old-1"], "deleting needs a yes"),
        (["delete", "../runs/old-1", "--yes"], "called '../runs/old-1'"),
        (["list", "old-1"], "takes no names"),
        (["list", "--older-than", "3 days"], "not an age"),
    ],
)
def test_a_mistake_deletes_nothing(
    capsys: pytest.CaptureFixture[str], storage: Path, words: list[str], told: str
) -> None:
    before = sorted(storage.rglob("*"))
    code, found = document(capsys, "runs", *words, "--storage", str(storage))
    assert code == 2
    assert told in found["error"]["message"]
    assert found["error"]["hint"]
    assert sorted(storage.rglob("*")) == before


def test_a_dry_run_only_tells(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    code, out, _ = run(capsys, "runs", "delete", "--state", "stopped", "--dry-run", "--storage", str(storage))
    assert code == 0
    assert "cut-1" in out
    assert (storage / "runs/cut-1/job.yaml").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "is_gone"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_on_a_terminal_it_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, storage: Path, answer: str, is_gone: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    run(capsys, "runs", "delete", "old-1", "--storage", str(storage))
    assert (storage / "runs/old-1").exists() != is_gone


def test_doctor_needs_no_ray_to_say_that_none_answers(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = document(capsys, "doctor", "--address", "127.0.0.1:1")
    assert code == 5
    assert [(check["name"], check["state"]) for check in found["checks"]] == [("versions", "ok"), ("ray", "fail")]
    assert "Connection refused" in found["checks"][1]["seen"]
    code, out, _ = run(capsys, "doctor", "--address", "127.0.0.1:1")
    assert code == 5
    assert out.splitlines()[1].startswith("fail  ray")
    assert out.splitlines()[2].startswith("      -> check --address")
