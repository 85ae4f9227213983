"""`export` and `predict` that end before a model is loaded; what they do with one is in tests/ray/."""

from __future__ import annotations

from pathlib import Path

import pytest

from startup_ray.model_verbs import _summary, _table
from tests.test_cli import document, run

JOB = "name: x\nseed: 3\nstorage: {0}/runs\ningest:\n  manifest: {0}/m.json\n"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """As far as it is looked at here."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB.format(tmp_path))
    (folder / "exit.json").write_text('{"run": "here"}')
    (folder / "classes.json").write_text('["a", "b"]')
    return folder


@pytest.mark.parametrize("words", [["export"], ["predict", "photos"]])
def test_a_run_that_is_none_or_unfinished(capsys: pytest.CaptureFixture[str], finished: Path, words: list[str]) -> None:
    verb, *rest = words
    code, found = document(capsys, verb, str(finished.parent / "none"), *rest)
    assert (code, found["error"]["message"]) == (2, "not the folder of a run")
    (finished / "exit.json").unlink()
    code, found = document(capsys, verb, str(finished), *rest)
    assert (code, found["error"]["hint"]) == (2, "run `startup-ray train JOB` first")


@pytest.mark.parametrize("words", [["export"], ["predict", "photos"]])
def test_a_job_file_without_a_run(capsys: pytest.CaptureFixture[str], finished: Path, words: list[str]) -> None:
    verb, *rest = words
    (finished.parent / "job.yaml").write_text(JOB.format(finished.parent))
    code, found = document(capsys, verb, str(finished.parent / "job.yaml"), *rest, "--set", "seed=4")
    assert (code, found["error"]["hint"]) == (2, "run `startup-ray ingest JOB` first")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "--to", "onxx"], "did you mean 'onnx'?"),
        (["export", "--to", ","], "no format is named"),
        (["export", "--set", "seed=3"], "cannot be changed for a finished run"),
        (["export", "--samples", "many"], "invalid int value"),
        (["export", "--out", "s3://user:secret@bucket/x"], "a password does not belong"),
        (["predict", "photos", "--set", "seed=3"], "cannot be changed for a finished run"),
        (["predict", "photos", "--set", "ingest.fetch.per_hosts=3"], "did you mean 'per_host'?"),
        (["predict", "photos", "--set", "ingest.fetch.per_host=0"], "greater than 0"),
        (["predict", "photos", "--out", "labels.txt"], ".jsonl, .csv or .parquet"),
        (["predict", "photos", "--top", "0"], "at least one class"),
        (["predict", "photos"], "no such file or folder"),
        (["predict", "photos.json"], "cannot read the manifest"),
        (["predict", "sample:letters"], "no such sample"),
        (["predict", "list.json", "photos"], "a manifest stands alone"),
        (["predict"], "the following arguments are required"),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], finished: Path, words: list[str], told: str
) -> None:
    verb, *rest = words
    code, found = document(capsys, verb, str(finished), *rest)
    assert code in (2, 5)
    assert told in found["error"]["message"] + found["error"]["hint"]
    assert "secret" not in str(found)
    assert not (finished / "exports").exists()


@pytest.mark.parametrize("verb", ["export", "predict"])
def test_the_help_has_the_exit_codes(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit):
        run(capsys, verb, "--help")
    out = " ".join(capsys.readouterr().out.split())
    assert "3 data below the asked threshold" in out
    assert "RUN" in out


def test_a_table_for_people() -> None:
    row = {"bytes": 2_803_486, "same_classes": False, "latency_ms": {"1": 0.5, "32": 12.25}, "path": "/x/model.onnx"}
    lines = _table([row | {"format": "onnx", "max_abs_diff": 2.86e-6}]).splitlines()
    assert lines[1].split() == ["onnx", "2.80", "MB", "2.9e-06", "DIFFER", "0.500", "12.250", "/x/model.onnx"]
    assert len(lines[0].partition("path")[0]) == len(lines[1].partition("/x")[0])


def test_a_summary_for_people() -> None:
    classes = {f"class {i}": 20 - i for i in range(12)}
    told = _summary({"rows": {"ok": 1_200, "http_404": 3}, "classes": classes})
    assert told.splitlines()[0] == "1,203 items: 1,200 ok, 3 http_404"
    assert told.endswith("class 9: 11, and 2 other classes")
