"""A dataset with every defect that an audit tells, made by hand."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from startup_ray import runs
from startup_ray.dataset import Dataset, write_dataset
from startup_ray.ledger import ledger_schema
from startup_ray.storage import Folder
from tests.fakes import make_dataset

SIDE = 32
CLASSES = ("cat", "dog", "owl")


def scene(seed: int) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3], smooth, another for each seed."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def darker(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 0.9).astype(np.uint8)


def defective(folder: Folder, names: tuple[str, str, str] = CLASSES) -> Dataset:
    """60 sound images in train and test, then ones with a defect each, by their places:

    60 resembles 0 in another split, 61 resembles 1 with another label, 62 is blank, 63 nearly so, 64 was enlarged,
    65 is long, 66 black but for a corner, 67 has no label, 68 is the one owl, 69 cannot be read.
    """
    images = [scene(i) for i in range(70)]
    labels: list[str | None] = [names[i % 2] for i in range(70)]
    splits = ["train" if i % 3 else "test" for i in range(70)]
    images[60], labels[60], splits[60] = darker(images[0]), labels[0], "train"
    images[61], labels[61], splits[61] = darker(images[1]), names[0], splits[1]
    images[62] = np.full_like(images[0], 255)
    images[63] = np.random.default_rng(0).integers(120, 128, images[0].shape, np.uint8)
    images[66] = np.zeros_like(images[0])
    images[66][:8, :8] = 120
    labels[67], labels[68], splits[68] = None, names[2], "train"
    made = make_dataset(folder, np.stack(images), labels, splits, shards=1)
    _change(folder, made, {64: (16, 40), 65: (400, 100)})
    counts = _ledger(folder, images)
    made = dataclasses.replace(made, items=sum(counts.values()), counts=counts)
    write_dataset(made)
    return made


def judge(storage: Folder, dataset: Dataset, name: str = "judge-1", wrong: int = 3) -> Folder:
    """A finished run, evaluated on test, sure that its first rows are of another class than their labels say."""
    run = storage / "runs" / name
    runs.put_json(run, runs.DATASET, {"dataset": str(dataset.folder), "digest": dataset.digest})
    runs.put_json(run, runs.EXIT, {"run": str(run)})
    run.put_whole(runs.CLASSES, json.dumps(dataset.classes).encode())
    shard = dataset.folder.read(f"images/{dataset.shards[0]}")
    table = pq.read_table(io.BytesIO(shard)).filter(pa.compute.field("split") == "test")
    ids, labels = table["id"].to_pylist(), table["label"].to_pylist()
    true = [dataset.classes.index(label) if label else 0 for label in labels]
    best = [1 - place if i < wrong else place for i, place in enumerate(true)]
    scores = [[0.9 - i / 100 if k == top else 0.05 for k in range(3)] for i, top in enumerate(best)]
    columns = {"id": ids, "label": labels, "scores": pa.array(scores, pa.list_(pa.float32()))}
    put(run / "evaluations" / "0a1b", "predictions/000.parquet", pa.table(columns))
    document = {"dataset_digest": dataset.digest, "split": "test"}
    runs.put_json(run / "evaluations" / "0a1b", runs.EVALUATION, document)
    runs.put_json(run, runs.LAST_EVALUATION, {"key": "0a1b"})
    return run


def put(folder: Folder, name: str, table: Any) -> None:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    folder.put_whole(name, stream.getvalue())


def _change(folder: Folder, dataset: Dataset, sizes: dict[int, tuple[int, int]]) -> None:
    """Give some images other originals, and damage the last."""
    name = f"images/{dataset.shards[0]}"
    table = pq.read_table(io.BytesIO(folder.read(name)))
    rows = table.to_pylist()
    for place, (width, height) in sizes.items():
        rows[place] |= {"width": width, "height": height}
    rows[-1]["image"] = b"broken"
    put(folder, name, pa.Table.from_pylist(rows, table.schema))


def _ledger(folder: Folder, images: list[np.ndarray]) -> dict[str, int]:
    kept = [
        {"id": f"{i:05d}", "url": f"http://a.org/{i}.png", "status": "ok", "bytes": 900 + 40 * i} for i in range(70)
    ]
    left = [
        ("copy-1", "http://a.org/c", "duplicate", "00000"),
        ("copy-2", "http://b.org/c", "duplicate", "00000"),
        ("copy-3", "http://b.org/d", "duplicate", "00003"),
        ("gone-1", "http://b.org/<gone>", "http_404", "Not Found"),
        ("gone-2", "http://b.org/2", "http_404", "Not Found"),
        ("slow-1", "http://a.org/3", "timeout", "silent for 15 s"),
        ("forgotten", "", "forgotten", ""),
    ]
    rows = [*kept, *({"id": a, "url": b, "status": c, "reason": d} for a, b, c, d in left)]
    put(folder, "ledger/000000.parquet", pa.Table.from_pylist(rows, schema=ledger_schema()))
    return {"ok": len(images), "duplicate": 3, "http_404": 2, "timeout": 1, "forgotten": 1}
