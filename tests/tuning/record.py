"""Record a table of learning curves, on which searchers and schedulers are replayed: 96 configurations of 9 epochs.

    python tests/tuning/record.py            # writes digits.json.gz beside this file; 4 minutes on 2 cores

Each configuration of the seed CNN is trained on the digits by the code that trains any run, on one worker.
"""

from __future__ import annotations

import gzip
import itertools
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from startup_ray import runs
from startup_ray.dataset import Dataset
from startup_ray.job import Job
from startup_ray.jobfile import parse_job
from startup_ray.storage import Folder

TABLE = Path(__file__).with_name("digits.json.gz")
EPOCHS = 9
AXES: dict[str, list[Any]] = {
    "training.learning_rate": [1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2, 1.024e-1],
    "training.optimizer": ["adam", "sgd"],
    "training.global_batch": [32, 128],
    "model.filters": [[8], [32]],
    "model.dense": [32, 128],
}
METRICS = ("val/loss", "val/accuracy", "val/f1")
JOB = """
name: table
storage: {storage}
ingest: {{manifest: sample:digits, image: {{size: [28, 28], channels: 1}}, split: {{val: 0.3, test: 0.2}}}}
training: {{epochs: {epochs}, steps_per_call: 4, keep: 1}}
scaling: {{workers: 1}}
"""


def configurations() -> list[dict[str, Any]]:
    return [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]


def job_of(storage: str, values: dict[str, Any]) -> Job:
    words = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return parse_job(JOB.format(storage=storage, epochs=EPOCHS), set=words)


def curve(number: int, storage: str, dataset: Dataset) -> list[list[float]]:
    """Metrics of each epoch; shorter if it diverges."""
    import keras

    from startup_ray.lease import hold
    from startup_ray.trainers.program import Spec
    from startup_ray.trainers.worker import Task, work

    job = job_of(storage, configurations()[number])
    keras.backend.clear_session()
    rows = tuple([dataset.splits["train"] // len(dataset.classes)] * len(dataset.classes))
    spec = Spec(
        image_shape=dataset.image_shape,
        classes=dataset.classes,
        class_rows=rows,
        model=job.model,
        training=job.training,
        seed=job.seed,
    )
    folder = Folder(f"{storage}/table/{number:03d}")
    with hold(folder) as lease:
        task = Task(dataset=dataset, folder=folder, fence=lease.fence, spec=spec, scaling=job.scaling)
        work(task, rank=0, world=1, emit=lambda _: None, meet=lambda: None)
    return [[round(line[name], 5) for name in METRICS] for line in runs.read_history(folder)]


def main() -> None:
    import startup_ray as sr

    with tempfile.TemporaryDirectory() as storage:
        with sr.connect():
            dataset = sr.ingest_images(job_of(storage, {}))
        count = len(configurations())
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            curves = list(pool.map(curve, range(count), [storage] * count, [dataset] * count))
    document = {"metrics": METRICS, "configurations": configurations(), "curves": curves}
    TABLE.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    main()
