"""The verbs for finished datasets: `export-dataset`, `audit` and `forget`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from startup_ray.dataset import Dataset


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="the folder of a dataset, or a job file: its newest")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override a key of the job file"
    )


def _named_dataset(target: str, overrides: Sequence[str]) -> Dataset:
    """The finished dataset in a folder, or the newest one of a job file.

    Raises:
        UsageError: there is none.
    """
    from startup_ray.dataset import read_dataset
    from startup_ray.jobfile import load_job
    from startup_ray.planning import is_job_file, need_dataset
    from startup_ray.storage import open_folder

    return need_dataset(load_job(target, set=overrides)) if is_job_file(target) else read_dataset(open_folder(target))
