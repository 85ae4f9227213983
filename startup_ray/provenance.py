"""What made a run: put beside it, so that it can be made again."""

from __future__ import annotations

import logging
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from startup_ray import runs
from startup_ray.dataset import Dataset
from startup_ray.job import Job
from startup_ray.ledger import redact
from startup_ray.storage import Folder

PACKAGES = ("startup_ray", "ray", "tensorflow", "keras", "numpy", "pyarrow")

log = logging.getLogger("startup_ray")


def describe(folder: Folder, job: Job, dataset: Dataset) -> None:
    """Write the resolved job, the environment and the dataset's place into a run's folder, without secrets."""
    plain = job.model_dump(mode="json")
    plain["ingest"]["manifest"] = redact(job.ingest.manifest)
    folder.put_whole(runs.JOB, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())
    runs.put_json(folder, runs.DATASET, {"dataset": str(dataset.folder), "digest": dataset.digest})
    before, now = runs.read_json(folder, runs.ENVIRONMENT), environment()
    if before and before["versions"] != now["versions"]:
        log.warning("train: this run began with other versions of its libraries: its last bits may differ")
    runs.put_json(folder, runs.ENVIRONMENT, now)


def environment() -> dict[str, Any]:
    """Versions, machine and command line of this process."""
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *(redact(word) if "://" in word else word for word in sys.argv[1:])],
    }
