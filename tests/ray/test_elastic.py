"""Workers that become fewer and more as nodes go and come."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.job import PythonOptions
from startup_ray.storage import Folder
from tests.ray.elastic_driver import STEPS, TRAINING
from tests.ray.training import MARKS, fit, results

pytestmark = MARKS


@pytest.mark.soak
def test_a_run_that_loses_a_node_and_gets_another_equals_one_worker(dataset: Dataset, tmp_path: Path) -> None:
    temporary = tempfile.mkdtemp(prefix="sr-", dir="/tmp")
    words = [sys.executable, "-m", "tests.ray.elastic_driver", str(tmp_path)]
    environment = {**os.environ, "RAY_TMPDIR": temporary}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=280, env=environment)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert [workers for _, workers in told["seen"]] == [2, 1, 2]
    for (step, _), changed_at in zip(told["seen"][1:], told["changed_at"], strict=True):
        assert step > changed_at - 10  # it went on from a checkpoint near by, not from the beginning
    assert told["document"]["workers"] == 2
    assert told["document"]["steps"] == STEPS
    alone = Folder(str(tmp_path / "alone"))
    fit(dataset, alone, model=PythonOptions(build="tests.nets:slow"), training=TRAINING, workers=1)
    elastic = results(Folder(str(tmp_path / "run")))
    assert len(elastic) == len(results(alone)) == STEPS // 5
    for line, of_one in zip(elastic, results(alone), strict=True):
        assert line == pytest.approx(of_one, rel=2e-3, abs=1e-3)


def test_it_starts_with_what_is_there(dataset: Dataset, tmp_path: Path) -> None:
    """Four CPUs are declared, so that of up to nine workers four begin."""
    document = fit(dataset, Folder(str(tmp_path)), training=TRAINING.model_copy(update={"steps": 5}), workers=(1, 9))
    assert document["workers"] == 4


def test_the_largest_number_of_workers_must_fit_the_batch(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="global_batch is 35, too few for 36 workers"):
        fit(dataset, Folder(str(tmp_path)), training=TRAINING, workers=(1, 36))
