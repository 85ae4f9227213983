"""Long counts, by `make soak` alone: a job killed again and again ends as if it never had been."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.ray.test_commands import JOB, Desk

CHANGE = ["--set", "training.epochs=40", "--set", "training.checkpoint_every_steps=7"]
KILLS = 8


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    moments = random.Random(7)
    desk = Desk(tmp_path)
    resumed = []
    for _ in range(KILLS):
        process = desk.start("run", JOB, *CHANGE, "--json", start_new_session=True)
        try:
            process.wait(moments.uniform(8, 40))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    for _ in range(2):
        code, document, err = desk.run("run", JOB, *CHANGE)
        assert code == 0, err
        resumed.append(document)
    assert resumed[0] == resumed[1]
    code, undisturbed, err = desk.run("run", JOB, *CHANGE, "--fresh")
    assert code == 0, err
    for stage, keys in {
        "ingest": ("digest", "counts", "splits", "classes"),
        "train": ("weights_digest", "metrics", "steps"),
        "evaluate": ("metrics", "intervals", "confusion"),
    }.items():
        for key in keys:
            assert resumed[0]["stages"][stage][key] == undisturbed["stages"][stage][key], key
