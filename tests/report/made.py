"""Runs and datasets made by hand, for reports of them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from startup_ray import runs
from startup_ray.dataset import Dataset, write_dataset
from startup_ray.evaluate import judge
from startup_ray.gates import parse_gate
from startup_ray.judged import read_rows
from startup_ray.ledger import ledger_schema
from startup_ray.metrics import Stats
from startup_ray.scored import ScoredRows
from startup_ray.slices import read_slices
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns

HISTORY = [
    {
        "epoch": epoch,
        "seconds": 1.0,
        "train/loss": 1 / epoch,
        "val/loss": 1.1 / epoch,
        "val/accuracy": 0.9,
        "val/f1": 0.9,
    }
    for epoch in (1, 2, 3)
]
JOB = {"name": "made", "seed": 7, "training": {"epochs": 3}}
ROWS = 12


def dataset_in(folder: Folder, names: tuple[str, ...] = ("0", "1", "2"), size: int = 8) -> Dataset:
    """ROWS images in the test split, and four items that did not arrive."""
    images, labels = patterns(ROWS, size=size)
    labels = [names[int(label)] for label in labels]
    found = make_dataset(folder, images, labels, ["test"] * ROWS)
    lost = {"http_404": 2, "corrupt": 1, "duplicate": 1}
    rows = [{"id": f"{i:05d}", "url": f"http://host/{i}.png?x=<b>", "status": "ok"} for i in range(ROWS)]
    rows += [
        {"id": f"{status} <i>", "url": "http://host/<u>", "status": status}
        for status in lost
        for _ in range(lost[status])
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=ledger_schema()), stream)
    folder.put_whole("ledger/000000.parquet", stream.getvalue())
    found = dataclasses.replace(found, items=len(rows), counts={"ok": ROWS} | lost)
    write_dataset(found)
    return found


def run_in(folder: Folder, job: dict[str, Any] | None = None, history: Sequence[dict[str, Any]] = ()) -> Folder:
    """A run that is neither finished nor evaluated; without history it needs no drawing."""
    folder.put_whole("job.yaml", yaml.safe_dump(job or JOB).encode())
    folder.put_whole("metrics/0.jsonl", "\n".join(json.dumps(record) for record in history).encode())
    runs.put_json(folder, "environment.json", {"versions": {"keras": "3.15.1"}, "python": "3.11.7"})
    return folder


def judged(run: Folder, dataset: Dataset, *, wrong: int = 2, gate: str = "f1 > 0.5") -> None:
    """Finish and evaluate a run whose first predictions are wrong, each less sure than the last."""
    runs.put_json(run, runs.DATASET, {"dataset": str(dataset.folder)})
    runs.put_json(
        run, runs.EXIT, {"run": str(run), "workers": 2, "steps": 30, "resumed_from": 12, "images_per_s": 2_345.6}
    )
    _, labels = patterns(ROWS)
    true = np.array([int(label) for label in labels])
    predicted = np.where(np.arange(ROWS) < wrong, (true + 1) % 3, true)
    sure = [0.9 - i / 100 for i in range(ROWS)]
    scores = [[p if k == best else (1 - p) / 2 for k in range(3)] for p, best in zip(sure, predicted, strict=True)]
    names = dataset.classes
    table = {
        "id": [f"{i:05d}" for i in range(ROWS)],
        "label": [names[i] for i in true],
        "predicted": [names[i] for i in predicted],
        "scores": pa.array(scores, pa.list_(pa.float32())),
        "loss": np.zeros(ROWS),
    }
    evaluation = run / "evaluations" / "0a1b2c3d"
    stream = io.BytesIO()
    pq.write_table(pa.table(table), stream)
    evaluation.put_whole("predictions/000000000000-000000000012.parquet", stream.getvalue())
    stats = Stats.empty(3).update(ScoredRows.of(true, np.log(np.array(scores))))
    document = judge(stats, names, [parse_gate(gate)], average="macro", seed=1)
    document |= {"split": "test", "predictions": evaluation.path("predictions"), "dataset_digest": dataset.digest}
    rows = read_rows(evaluation / "predictions", names)
    document["slices"] = read_slices(rows, dataset, ["host", "width"], num_classes=3, average="macro")
    runs.put_json(evaluation, runs.EVALUATION, document)
