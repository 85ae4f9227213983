"""Nodes that go and come while a sweep runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from startup_ray.runs import EXIT, read_json
from startup_ray.storage import Folder
from startup_ray.tuning.journal import TRIALS, read_trials
from tests.cluster import keeper
from tests.cluster.changing import EPOCHS, LAST, TOLD
from tests.cluster.changing import TRIALS as COUNT
from tests.submit.head import free_ports

NOTICED = {"period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 3, "initial_delay_ms": 1000}
"""Of Ray's health check, as shipped in cluster/."""


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Of a Ray of its own, that touches nothing of the user's."""
    folder = tempfile.mkdtemp(prefix="sr-", dir="/tmp")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {f"RAY_health_check_{name}": str(value) for name, value in NOTICED.items()}
    yield env | {"HOME": folder, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_sweep_loses_a_node_and_gets_another_and_no_trial_is_lost(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "tests.cluster.changing", str(tmp_path), *map(str, free_ports(2))]
    process = keeper.start(words, environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, err = process.communicate(timeout=280)
    finally:
        process.terminate()
    assert process.returncode == 0, err[-3000:]
    told = json.loads((tmp_path / TOLD).read_text())
    folder, nodes, document = Folder(str(tmp_path / "sweep")), told["nodes"], told["document"]

    trials = read_trials(folder)
    assert [(trial.number, trial.state, sorted(trial.lines)) for trial in trials] == [
        (number, "finished", list(range(1, EPOCHS + 1))) for number in range(COUNT)
    ]
    ran_on = [set((folder / TRIALS / f"{trial.number:05d}").list("nodes")) for trial in trials]
    moved = [trial.number for trial, where in zip(trials, ran_on, strict=True) if nodes["goes"] in where]
    assert len(moved) == 1
    assert len(ran_on[moved[0]]) == 2
    assert all(len(where) == 1 for number, where in enumerate(ran_on) if number != moved[0])
    assert any(nodes["comes"] in where for where in ran_on)
    assert [_epochs_by_attempt(folder, trial.number) for trial in trials] == [
        [LAST, EPOCHS - LAST] if trial.number in moved else [EPOCHS] for trial in trials
    ]

    best = max(trials, key=lambda trial: float(trial.lines[EPOCHS]["val/f1"]))
    assert document == read_json(folder, EXIT)
    assert (document["trials"], document["finished"], document["stopped"]) == (COUNT, COUNT, 0)
    assert document["best"]["trial"] == best.number
    assert document["best"]["values"] == best.values
    assert document["best"]["value"] == pytest.approx(best.lines[EPOCHS]["val/f1"])


def _epochs_by_attempt(folder: Folder, number: int) -> list[int]:
    """How many epochs each process has trained of a trial, in order."""
    place = folder / TRIALS / f"{number:05d}"
    found = [(place / f"attempts/{pid}").list("metrics") for pid in place.list("attempts")]
    return [len(names) for names in sorted(found)]
