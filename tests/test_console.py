from __future__ import annotations

from dataclasses import dataclass

import pytest

from startup_ray.console import plan_text, progress, summary


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
