"""`doctor` on a real Ray; what it says of clusters that are ill is in tests/doctor."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from startup_ray.doctor import FAIL, OK, examine

pytestmark = pytest.mark.usefixtures("ray_session")

NAMES = ["versions", "ray", "same versions", "clocks", "space", "storage", "gpus", "ports", "collective"]


def test_a_healthy_machine_passes_every_check_but_that_of_gpus_which_only_ray_believes_in(tmp_path: Path) -> None:
    checks = list(examine(storage=str(tmp_path / "runs")))
    assert [check.name for check in checks] == NAMES
    assert [(check.name, check.seen) for check in checks if check.state == FAIL] == [
        ("gpus", "Ray has 2 GPUs, TensorFlow on a worker sees none")
    ]
    assert checks[-1].state == OK
    assert list((tmp_path / "runs").iterdir()) == []
    assert ray.is_initialized()


def test_storage_that_cannot_be_written_fails_and_the_rest_goes_on() -> None:
    checks = {check.name: check for check in examine(storage="/proc/none")}
    assert checks["storage"].state == FAIL
    assert "cannot write here" in checks["storage"].seen
    assert checks["collective"].state == OK
