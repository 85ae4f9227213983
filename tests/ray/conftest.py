"""One Ray for all tests of this folder, with its own temporary folder, home and ports."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startup_ray.dataset import Dataset
from startup_ray.storage import Folder
from tests.ray.training import LONG, dataset_in, fit
from tests.s3 import KEYS

NUM_CPUS, NUM_GPUS = 4, 2
"""Declared, not real: room for two workers beside Ray Data on a machine with two cores, and GPUs that are not there."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    import ray

    folder = tempfile.mkdtemp(prefix="sr-", dir="/tmp")
    os.environ.update(
        HOME=folder, STARTUP_RAY_CACHE=f"{folder}/cache", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.25", **KEYS
    )
    ray.init(num_cpus=NUM_CPUS, num_gpus=NUM_GPUS, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Dataset:
    """209 labelled rows to train on, and batches of validation for three workers, the last of them short."""
    return dataset_in(Folder(str(tmp_path_factory.mktemp("dataset"))))


@pytest.fixture(scope="session")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Folder]:
    """The long run with two workers."""
    folder = Folder(str(tmp_path_factory.mktemp("run")))
    return fit(dataset, folder, training=LONG), folder
