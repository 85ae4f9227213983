from __future__ import annotations

import io
import logging
import sys
from dataclasses import dataclass

import pytest

from startup_ray.console import epoch_table, listen, plan_text, progress, summary, trial_table
from startup_ray.tuning.messages import SweepProgress


@dataclass(frozen=True)
class Event:
    done: int
    total: int
    text: str


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("ingest", quiet=False) as show:
        for done in range(1, 101):
            show(Event(done, 100, f"{done} of 100"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["ingest: 1 of 100", "ingest: 100 of 100"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("ingest", quiet=True) as show:
        show(Event(1, 1, "all"))
    assert capsys.readouterr() == ("", "")


def test_a_plan_names_state_and_folder() -> None:
    steps = [
        {"stage": "ingest", "state": "finished", "folder": "/d"},
        {"stage": "train", "state": "waits", "folder": ""},
    ]
    assert plan_text({"name": "x"}, steps, {}) == "name: x\n\nwould do:\n  ingest    finished  /d\n  train     waits"


def test_a_summary_tells_what_counts() -> None:
    documents = {
        "ingest": {"dataset": "/d", "items": 3, "counts": {"ok": 2, "http_404": 1}, "splits": {"train": 2, "val": 0}},
        "evaluate": {
            "metrics": {"accuracy": 0.5, "f1": None},
            "intervals": {"accuracy": [0.25, 0.75]},
            "gates": [{"gate": "f1 >= 0.9", "value": None, "passed": False}],
        },
    }
    text = summary(documents)
    assert "3 items: 2 ok, 1 http_404" in text
    assert "accuracy 0.5000 (0.2500 to 0.7500), f1 -" in text
    assert "f1 >= 0.9: NOT met" in text


def test_the_table_has_a_row_per_epoch_and_a_column_per_metric() -> None:
    from rich.console import Console

    line = {"epoch": 1, "step": 9, "train/loss": 1.23456, "images_per_s": 99.6, "seconds": 2.0}
    out = io.StringIO()
    Console(file=out, width=100).print(epoch_table([line, {**line, "epoch": 2, "val/f1": 0.5}]))
    rows = [row.split() for row in out.getvalue().splitlines()]
    assert rows == [
        ["epoch", "step", "train/loss", "val/f1", "images/s", "seconds"],
        ["1", "9", "1.2346", "-", "100", "2.0"],
        ["2", "9", "1.2346", "0.5000", "100", "2.0"],
    ]


def test_the_trials_that_run_stand_in_a_table_under_the_best() -> None:
    from rich.console import Console

    progress = SweepProgress(
        phase="search",
        counts={"running": 2, "finished": 1, "stopped": 3, "diverged": 0, "failed": 0},
        most=24,
        metric="val/f1",
        best=(1, 0.91234, {"training.learning_rate": 0.00123456, "model.filters": [8, 16]}),
        running=((4, 2, 0.5, {"training.learning_rate": 0.1}), (5, 0, None, {"training.learning_rate": 0.01})),
        epochs=20,
        left="9 min left",
    )
    out = io.StringIO()
    Console(file=out, width=100).print(trial_table(progress))
    assert [row.split() for row in out.getvalue().splitlines()] == [
        ["trial", "epochs", "val/f1", "values"],
        ["1", "best", "0.9123", "learning_rate", "0.00123,", "filters", "[8,", "16]"],
        ["4", "2", "0.5000", "learning_rate", "0.1"],
        ["5", "0", "-", "learning_rate", "0.01"],
    ]
    assert progress.text == (
        "4 of 24 trials: 2 running, 1 finished, 3 stopped; best val/f1 0.9123 (trial 1); 9 min left"
    )


def test_a_summary_of_a_sweep_says_how_sure_it_is() -> None:
    best = {"metric": "val/f1", "trial": 3, "values": {"model.dense": 64}, "value": 0.95}
    document = {
        "sweep": "/s",
        **dict.fromkeys(("diverged", "failed"), 0),
        "trials": 9,
        "finished": 3,
        "stopped": 6,
        "epochs": 30,
        "metric": "val/f1",
        "best": {**best, "interval": [0.94, 0.96], "as_good": [1, 2]},
        "test": {"metrics": {"accuracy": 0.9}},
        "job": "/s/best.yaml",
    }
    text = summary({"sweep": document})
    assert "best val/f1 0.9500 (0.9400 to 0.9600 with fresh seeds)" in text
    assert "which may be chance: trials 1, 2 may be as good" in text
    assert "test: accuracy 0.9000" in text
    assert "fresh seeds" not in summary({"sweep": {**document, "best": best, "test": {}}})


def test_a_note_goes_to_what_stderr_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("startup_ray")
    for name in ("handlers", "propagate", "level"):  # which are as before when the test is over
        monkeypatch.setattr(log, name, getattr(log, name))
    listen(quiet=False, verbose=False)
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    log.info("hello")
    assert later.getvalue() == "hello\n"
