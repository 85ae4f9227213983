"""Whole commands, each a process of its own with its own home: what a user types, and what is left on storage."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest
import yaml

from tests.ray.desk import Desk

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
JOB = str(ROOT / "jobs" / "digits-cnn.yaml")
FAULTS = {
    "fault-404": "http_404",
    "fault-truncated": "truncated",
    "fault-html": "not_image",
    "fault-oversized": "too_large",
    "fault-duplicate": "duplicate",
    "fault-redirect": "blocked_address",
    "fault-file": "blocked_scheme",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def demo(desk: Desk) -> dict[str, Any]:
    """The documents of the demo's stages."""
    code, document, err = desk.run("demo")
    assert code == 0, err
    stages: dict[str, Any] = document["stages"]
    return stages


@pytest.mark.timeout(300)
def test_the_demo_learns_the_digits(demo: dict[str, Any]) -> None:
    assert list(demo) == ["ingest", "train", "evaluate", "report"]
    assert demo["evaluate"]["metrics"]["accuracy"] >= 0.97
    assert demo["train"]["workers"] == 2
    assert all(gate["passed"] for gate in demo["evaluate"]["gates"])
    low, high = demo["evaluate"]["intervals"]["accuracy"]
    assert low < demo["evaluate"]["metrics"]["accuracy"] < high


def test_every_planted_fault_ends_in_its_state(demo: dict[str, Any]) -> None:
    ledger = pq.read_table(Path(demo["ingest"]["dataset"]) / "ledger").to_pylist()
    states = {row["id"]: row for row in ledger}
    assert {name: states[name]["status"] for name in FAULTS} == FAULTS
    flaky = [row for row in ledger if row["attempts"] > 1 and row["status"] == "ok"]
    assert len(flaky) == 1
    assert len(ledger) == demo["ingest"]["items"] == sum(demo["ingest"]["counts"].values()) == 1797 + len(FAULTS)


def test_what_a_run_leaves_behind(demo: dict[str, Any]) -> None:
    run = Path(demo["train"]["run"])
    wanted = {"job.yaml", "environment.json", "dataset.json", "metrics", "checkpoints", "LATEST", "model.keras"}
    assert wanted | {"last.keras", "classes.json", "exit.json", "report.html"} <= {path.name for path in run.iterdir()}
    predictions = pq.read_table(Path(demo["evaluate"]["predictions"]))
    assert predictions.num_rows == demo["evaluate"]["rows"]["total"] == demo["ingest"]["splits"]["test"]
    assert predictions.column_names == ["id", "label", "predicted", "scores", "loss"]
    assert Path(demo["report"]["report"]).stat().st_size < 1_000_000


def test_a_finished_command_prints_its_result_at_once(desk: Desk, demo: dict[str, Any]) -> None:
    began = time.monotonic()
    code, again, err = desk.run("run", JOB)
    assert code == 0
    assert again["stages"] == demo
    assert err.count("finished before") == 3
    assert time.monotonic() - began < 20


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_one_worker_gives_what_two_give(desk: Desk, demo: dict[str, Any]) -> None:
    """Ingested afresh too: the digest of a dataset depends neither on time nor on place."""
    found = []
    for workers in (1, 2):
        change = ["--set", f"scaling.workers={workers}", "--set", "training.epochs=2", "--set", "evaluation.gates=[]"]
        code, document, err = desk.run("run" if workers == 1 else "train", JOB, *change, "--fresh")
        assert code == 0, err
        found.append(document)
    one, two = found[0]["stages"]["train"], found[1]
    assert (one["workers"], two["workers"]) == (1, 2)
    assert one["run"] != two["run"]
    assert found[0]["stages"]["ingest"]["digest"] == demo["ingest"]["digest"]
    assert found[0]["stages"]["ingest"]["dataset"] != demo["ingest"]["dataset"]
    assert two["metrics"]["train/loss"] == pytest.approx(one["metrics"]["train/loss"], rel=1e-4)
    assert two["metrics"]["val/loss"] == pytest.approx(one["metrics"]["val/loss"], rel=1e-4)


@pytest.mark.timeout(300)
def test_a_sweep_that_was_interrupted_goes_on_to_a_trained_winner(desk: Desk, demo: dict[str, Any]) -> None:
    space = "{training.learning_rate: 'loguniform(1e-4, 1e-1)', model.dense: 'choice(16, 64)'}"
    words = [
        "--set",
        f"sweep={{trials: 3, confirm: 1, seeds: 1, test: true, space: {space}}}",
        "--set",
        "training.epochs=4",
    ]
    words += ["--set", "evaluation.gates=[]"]
    with desk.start("sweep", JOB, *words) as process:
        trials = Path(demo["train"]["run"]).parents[1] / "sweeps"
        _wait(lambda: any(trials.glob("*/trials/*/metrics/*.jsonl")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    code, document, err = desk.run("run", JOB, *words)
    assert code == 0, err
    assert list(document["stages"]) == ["ingest", "sweep", "train", "evaluate", "report"]
    found = document["stages"]["sweep"]
    assert found["trials"] == 3 == sum(found[state] for state in ("finished", "stopped", "diverged", "failed"))
    job = yaml.safe_load((Path(document["stages"]["train"]["run"]) / "job.yaml").read_text())
    assert job["training"]["learning_rate"] == found["best"]["values"]["training.learning_rate"]
    assert not {"╭", "Traceback", "Trial status"} & set(err.split())
    assert re.search(r"^sweep: \d of 3 (trials|trainings)", err, re.MULTILINE)
    assert found["test"]["metrics"]["accuracy"] > 0.5
    page = Path(document["stages"]["report"]["report"]).read_text()
    assert "training.learning_rate" in page
    assert (Path(found["sweep"]) / "report.html").exists()


def test_ray_data_evaluates_as_one_process_does(desk: Desk, demo: dict[str, Any]) -> None:
    change = ["--set", "evaluation.ray_above_rows=0", "--set", "evaluation.gates=[f1 > 0]"]
    code, document, err = desk.run("evaluate", JOB, *change)
    assert code == 0, err
    assert document["evaluation"] != demo["evaluate"]["evaluation"]
    assert {key: document[key] for key in ("metrics", "intervals", "confusion", "rows")} == {
        key: demo["evaluate"][key] for key in ("metrics", "intervals", "confusion", "rows")
    }


def test_the_report_shows_what_was_judged_last(desk: Desk, demo: dict[str, Any]) -> None:
    report = Path(demo["report"]["report"])
    for gates, code in (("[f1 >= 1.1]", 6), ("[f1 >= 0.95]", 0)):
        found, document, err = desk.run("run", JOB, "--set", f"evaluation.gates={gates}")
        assert found == code, err
        assert [gate["passed"] for gate in document["stages"]["evaluate"]["gates"]] == [code == 0]
        assert ("gate met" in report.read_text()) == (code == 0)


def test_a_polite_stop_of_an_ingest_is_told(desk: Desk, demo: dict[str, Any]) -> None:
    """Also where a shell has started the command in the background, for which it ignores Ctrl-C."""
    job = ["ingest", JOB, "--set", "ingest.split.val=0.11", "--json"]
    process = desk.start(*job, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    _wait(lambda: list(desk.folder.glob("runs/datasets/*/chunks/*")))  # it is being planned, or fetched already
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["error"]["message"] == "interrupted"
    assert "Traceback" not in err


OPTIONS = [
    "model={filters: [8], dense: 16, batch_norm: true, dropout: 0.2, l2: 1e-4}",
    "training={epochs: 10, global_batch: 64, schedule: cosine, clip_norm: 1, ema: 0.9, augment: {shift: 0.1}}",
]
SETS = [word for text in OPTIONS for word in ("--set", text)]


@pytest.fixture(scope="module")
def undisturbed(desk: Desk, demo: dict[str, Any]) -> dict[str, Any]:
    code, document, err = desk.run("train", JOB, *SETS)
    assert code == 0, err
    assert document["resumed_from"] is None
    return document


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "keep"),
    [
        (signal.SIGKILL, 2),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, 4, marks=pytest.mark.soak),
    ],
)
def test_stopped_in_the_middle_and_run_again(
    desk: Desk, undisturbed: dict[str, Any], kind: signal.Signals, keep: int
) -> None:
    change = [*SETS, "--set", f"training.keep={keep}"]  # which makes another run of the same weights
    process = desk.start("train", JOB, *change, "--json", start_new_session=True)
    run = _wait(lambda: _begun_run(desk, f"  keep: {keep}"))
    _wait(lambda: (run / "LATEST").exists())
    if kind == signal.SIGINT:
        os.killpg(process.pid, kind)  # as a terminal does: to the command and all that it started
    else:
        process.send_signal(kind)
    process.communicate(timeout=60)
    assert process.returncode == (-kind if kind == signal.SIGKILL else 130)
    assert not (run / "exit.json").exists()
    _wait(lambda: not _workers_of(run))
    code, resumed, err = desk.run("train", JOB, *change)
    assert code == 0, err
    assert resumed["run"] == str(run)
    assert resumed["resumed_from"] > 0
    assert resumed["weights_digest"] == undisturbed["weights_digest"]
    assert resumed["metrics"] == undisturbed["metrics"]


@pytest.fixture
def begun(desk: Desk, demo: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = desk.start("train", JOB, "--set", "seed=999", "--set", "training.epochs=500", "--json")
    yield process, _wait(lambda: _begun_run(desk, "seed: 999"))
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.timeout(200)
def test_a_second_writer_is_told_who_is_first(desk: Desk, begun: tuple[subprocess.Popen[str], Path]) -> None:
    process, run = begun
    code, document, _ = desk.run("train", JOB, "--set", "seed=999", "--set", "training.epochs=500")
    assert code == 5
    assert document["error"]["kind"] == "RunHeldError"
    assert f"process {process.pid} " in document["error"]["message"]
    assert document["error"]["where"] == str(run)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (["training.global_batch=5000"], 2, "the train split has"),
        (["scaling.workers=400", "seed=5", "training.global_batch=500"], 5, "the cluster has"),
        (["storage=/proc/none"], 5, "cannot write here"),
        (["ingest.manifest=none.json"], 2, "cannot read the manifest"),
        (["evaluation.gates=[f1 => 1]"], 2, "gate"),
        (["evaluation.gates=['recall[x] > 0']", "seed=5"], 2, "'x' is no class"),
        (["ingest.min_success=1.0"], 3, "min_success"),
    ],
)
def test_a_mistake_is_told_in_words(desk: Desk, demo: dict[str, Any], change: list[str], code: int, told: str) -> None:
    sets = [word for text in change for word in ("--set", text)]
    found, document, err = desk.run("run", JOB, *sets)
    assert found == code, err
    assert told in document.get("error", {}).get("message", "")
    assert "Traceback" not in err


def _begun_run(desk: Desk, line: str) -> Path | None:
    for path in desk.folder.glob("runs/runs/*/job.yaml"):
        if f"\n{line}\n" in path.read_text():
            return path.parent
    return None


def _workers_of(run: Path) -> list[str]:
    """Living train workers that belong to this desk, by their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"RayTrainWorker" in (folder / "cmdline").read_bytes():
                environment = (folder / "environ").read_bytes()
                found += [folder.name] if str(run.parents[2]).encode() in environment else []
        except OSError:  # it has just ended
            continue
    return found


def _wait(condition: Callable[[], T | None], timeout_s: float = 120) -> T:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found
