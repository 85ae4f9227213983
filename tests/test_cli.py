"""Commands that end before a stage starts. Whole commands are in tests/ray/test_commands.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from startup_ray.cli import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, *argv, "--json")
    return code, json.loads(out)


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(f"name: x\nstorage: {tmp_path}/runs\ningest:\n  manifest: {tmp_path}/m.json\n")
    return str(path)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 2
    assert "ingest" in out


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema")
    assert code == 0
    assert json.loads(out)["properties"]["training"]


def test_an_error_of_the_job_file_has_no_traceback(capsys: pytest.CaptureFixture[str], job: str) -> None:
    code, out, err = run(capsys, "train", job, "--set", "training.epoch=1")
    assert code == 2
    assert out == ""
    assert err == "error: --set training.epoch=1: training.epoch: unknown key, did you mean 'epochs'?\n"


def test_an_error_as_json_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str], job: str) -> None:
    code, found = document(capsys, "run", job)
    assert code == 2
    assert found["error"]["kind"] == "ManifestError"
    assert set(found["error"]) == {"kind", "message", "where", "hint"}


def test_a_size_that_no_gan_can_make_is_told_before_anything_is_fetched(
    capsys: pytest.CaptureFixture[str], job: str
) -> None:
    code, found = document(capsys, "run", job, "--set", "model.kind=gan", "--set", "ingest.image.size=[30, 30]")
    assert code == 2
    assert "cannot make images of 30x30" in found["error"]["message"]
    assert found["error"]["where"] == "ingest.image.size"


def test_a_sweep_of_a_job_without_one_is_told_at_once(capsys: pytest.CaptureFixture[str], job: str) -> None:
    code, _, err = run(capsys, "sweep", job)
    assert code == 2
    assert err.startswith("error: sweep: the job has no sweep\n  give it a section `sweep`")


def test_a_space_that_does_not_fit_the_job_is_told_with_its_place(capsys: pytest.CaptureFixture[str], job: str) -> None:
    code, _, err = run(capsys, "sweep", job, "--set", "sweep.space.training.epoch=int(1, 9)")
    assert code == 2
    assert (
        "sweep.space.training.epoch: unknown key, did you mean 'training.epochs'?" in err
        or "did you mean 'epochs'?" in err
    )


@pytest.mark.parametrize("verb", ["ingest", "export-dataset", "audit", "forget", "runs"])
def test_an_unknown_option_names_the_help_of_its_verb(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    words = {"export-dataset": ["x", "--to", "folder"], "runs": []}.get(verb, ["x"])
    code, _, err = run(capsys, verb, *words, "--misspelt")
    assert (code, err) == (
        2,
        f"error: unrecognized arguments: --misspelt\n  see `startup-ray {verb} --help`\n",
    )


def test_v_shows_the_traceback(capsys: pytest.CaptureFixture[str], job: str) -> None:
    code, _, err = run(capsys, "train", job, "-v")
    assert code == 2
    assert "Traceback" in err


def test_a_dry_run_tells_job_and_plan_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], job: str, tmp_path: Path
) -> None:
    (tmp_path / "m.json").write_text("[]")
    code, found = document(capsys, "run", job, "--dry-run", "--set", "seed=3")
    assert code == 0
    assert found["job"]["seed"] == 3
    assert [(step["stage"], step["state"]) for step in found["plan"]] == [
        ("ingest", "new"),
        ("train", "waits"),
        ("evaluate", "waits"),
        ("report", "waits"),
    ]
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_of_ingest_shows_what_would_be_fetched(
    capsys: pytest.CaptureFixture[str], job: str, tmp_path: Path
) -> None:
    hosts = ["a.org"] * 2 + [f"{i}.example.com" for i in range(12)]
    items: list[Any] = [{"id": f"{i}", "url": f"https://{host}/{i}?sig=x"} for i, host in enumerate(hosts)]
    (tmp_path / "m.json").write_text(json.dumps([*items, {"id": "bad"}]))
    code, found = document(capsys, "ingest", job, "--dry-run")
    assert code == 0
    assert (found["fetch"]["items"], found["fetch"]["to_fetch"], found["fetch"]["bad_rows"]) == (15, 14, {"bad_url": 1})
    assert found["fetch"]["hosts"][0] == {"host": "a.org", "items": 2}
    _, out, _ = run(capsys, "ingest", job, "--dry-run")
    assert "would fetch 14 of 15 items, 1 bad_url, from 13 hosts:" in out
    assert "2  a.org" in out
    assert "3  from 3 other hosts" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "timeout"], "--only says which failures --retry-failed fetches"),
        (["--retry-failed", "--fresh"], "--fresh fetches everything"),
        (["--retry-failed", "--only", "time-out"], "did you mean 'timeout'"),
    ],
)
def test_flags_that_contradict(capsys: pytest.CaptureFixture[str], job: str, words: list[str], told: str) -> None:
    code, found = document(capsys, "ingest", job, *words)
    assert code == 2
    assert told in found["error"]["message"] + found["error"]["hint"]


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_stage_without_what_it_needs_names_the_command(
    capsys: pytest.CaptureFixture[str], job: str, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "m.json").write_text("[]")
    code, found = document(capsys, verb, job)
    assert code == 2
    assert found["error"]["hint"] == "run `startup-ray ingest JOB` first"


def test_relative_storage_inside_a_ray_job(
    capsys: pytest.CaptureFixture[str], job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    code, found = document(capsys, "run", job, "--set", "storage=runs")
    assert code == 5
    assert found["error"]["message"] == "a relative path does not outlive a Ray job"


def test_a_report_of_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = document(capsys, "report", str(tmp_path))
    assert code == 2
    assert found["error"]["where"] == str(tmp_path)


def test_a_fault_of_ours_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("startup_ray.jobfile.load_job", broken)
    code, _, err = run(capsys, "run", job)
    assert code == 1
    assert "unexpected RuntimeError: a bug" in err
    assert "Traceback" not in err
