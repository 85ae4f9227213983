"""Runs of a GAN made by hand, for reports of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from startup_ray import runs
from startup_ray.dataset import Dataset
from startup_ray.gates import check_gates, parse_gate
from startup_ray.storage import Folder
from tests.fakes import png
from tests.report.made import JOB, run_in

GAN_JOB = JOB | {"model": {"kind": "gan", "conditional": True}}
LOOKS = (2, 4)
"""Epochs after which samples were looked at."""
HISTORY = [
    {
        "epoch": epoch,
        "seconds": 1.0,
        "train/d_loss": 0.5,
        "train/g_loss": 2 / epoch,
        "train/penalty": 0.1,
        "train/d_real": 0.9,
        "train/d_fake": 0.9,
        "train/d_norm": 0.5,
        "train/g_norm": 0.7,
        **(
            {"val/fid": 20 / epoch, "val/coverage": 0.8, "val/entropy": 0.9, "val/copies": 0.0}
            if epoch in LOOKS
            else {}
        ),
    }
    for epoch in (1, 2, 3, 4)
]
METRICS = {
    "fid": 4.04,
    "kid": 0.15,
    "precision": 0.9,
    "recall": 0.7,
    "density": 0.8,
    "coverage": 0.88,
    "entropy": 0.95,
    "rarest": 0.0,
    "missing": 1.0,
    "cas": 0.92,
    "nearest_ratio": 1.24,
    "nearest_ratio_p5": 1.39,
    "copies": 0.012,
}
FLOOR = {
    "rows": 342,
    "real": {"fid": 3.48, "kid": -2.8, "precision": 0.95, "recall": 0.96, "density": 1.03, "coverage": 0.72},
    "generated": {"fid": 7.83, "kid": 2.7, "precision": 0.87, "recall": 0.86, "density": 0.79, "coverage": 0.54},
}


def picture(columns: int = 10, rows: int = 8, seed: int = 0) -> bytes:
    """A PNG of noise, columns x rows samples of 2 pixels a side, with what lies between them."""
    return png(np.random.default_rng(seed).integers(0, 256, (4 * rows - 2, 4 * columns - 2), np.uint8))


def gan_in(folder: Folder, *, looks: Sequence[int] = LOOKS, history: Sequence[dict[str, Any]] = HISTORY) -> Folder:
    """A run that is neither finished nor evaluated."""
    run_in(folder, GAN_JOB, history)
    for epoch in looks:
        folder.put_whole(f"{runs.SAMPLES}/{epoch:06d}.png", picture(seed=epoch))
    return folder


def finished(run: Folder, dataset: Dataset) -> None:
    """It has been trained."""
    runs.put_json(run, runs.DATASET, {"dataset": str(dataset.folder)})
    step = {"total": 0.02, "compute": 0.015, "all_reduce": 0.004, "input": 0.001}
    document = {"run": str(run), "kind": "gan", "workers": 2, "epochs": 4, "steps": 40, "best_epoch": 4, "step_s": step}
    runs.put_json(run, runs.EXIT, document)


def judged_gan(run: Folder, dataset: Dataset, *, gates: Sequence[str] = ("fid <= 8",), **changes: Any) -> None:
    """It has been trained and judged; the last class of the dataset is never made.

    Args:
        gates: of the evaluation.
        changes: of its document.
    """
    finished(run, dataset)
    names = dataset.classes
    shares = [1 / (len(names) - 1)] * (len(names) - 1) + [0.0] if len(names) > 1 else []
    document: dict[str, Any] = {
        "kind": "gan",
        "dataset_digest": dataset.digest,
        "samples": {"generated": 2_000, "train": 1_264, "test": 342},
        "features": {"from": "a classifier of the train split", "size": 64, "accuracy": 0.98},
        "metrics": METRICS,
        "floor": FLOOR,
        "modes": [{"class": name, "share": share} for name, share in zip(names, shares, strict=False)],
        "classes": list(names),
    }
    document |= changes
    document["gates"] = check_gates([parse_gate(gate) for gate in gates], document)
    place = run / "evaluations" / "0a1b2c3d"
    place.put_whole("samples.png", picture(rows=10, seed=100))
    place.put_whole("nearest.png", picture(rows=2, seed=101))
    runs.put_json(place, runs.EVALUATION, document)
