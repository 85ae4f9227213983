"""Datasets with ids and labels of all kinds, and what an export of them must hold."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from startup_ray.dataset import SPLITS, Dataset, Digest, class_names, image_schema, write_dataset
from startup_ray.ingest.encode import encode
from startup_ray.job import ImageOptions
from startup_ray.outlet import FORMS, export_dataset
from startup_ray.storage import Folder
from startup_ray.stored import pixels_of
from tests.fakes import png

HOSTILE = [
    "../../x", "/etc/passwd", "a.b", "a.b.c/d", "CON", "con", "nul.txt", "ä", "a\u0308", "\u200b", ".hidden", "-rf",
    "x" * 500, "X" * 500, "cat", "Cat", "cat-1", "cat-00", "a\nb", "a\rb", "a\0b", "=1+1", 'a,"b', "猫", "\u202egnp",
    " . ", "..",
]  # fmt: skip
"""As ids and as labels."""
OPTIONS = ImageOptions(size=(6, 5), channels=3)
LIGHT = [form for form in FORMS if form != "tfrecord"]
"""Forms that need no TensorFlow."""


def make(
    folder: Path | Folder, ids: Sequence[str], labels: Sequence[str | None], image: ImageOptions = OPTIONS
) -> Dataset:
    """A dataset in two shards whose images differ in every pixel row; splits in turn, twice as much to train."""
    rng = np.random.default_rng(0)
    height, width, channels = *image.size, image.channels
    pixels = rng.integers(0, 256, (len(ids), height, width, channels), np.uint8)
    splits = [("train", "val", "train", "test")[i % 4] for i in range(len(ids))]
    rows = [
        {
            "id": item,
            "sha256": hashlib.sha256(item.encode()).hexdigest(),
            "label": label,
            "split": split,
            "width": 100 + i,
            "height": 50,
            "own": json.dumps({"place": item[:9], "n": i}) if i % 2 else None,
            "image": _stored(pixels[i], image),
        }
        for i, (item, label, split) in enumerate(zip(ids, labels, splits, strict=True))
    ]
    return write(folder if isinstance(folder, Folder) else Folder(str(folder)), rows, image)


def write(folder: Folder, rows: list[dict[str, Any]], image: ImageOptions) -> Dataset:
    """Rows of `image_schema` as a dataset."""
    half = len(rows) // 2
    for name, part in (("0.parquet", rows[:half]), ("1.parquet", rows[half:])):
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part, schema=image_schema()), stream)
        folder.put_whole(f"images/{name}", stream.getvalue())
    digest = Digest()
    digest.update((row["id"], row["sha256"], row["label"], row["split"]) for row in sorted(rows, key=lambda r: r["id"]))
    splits = [row["split"] for row in rows]
    dataset = Dataset(
        folder=folder,
        digest=digest.text(),
        items=len(rows),
        counts={"ok": len(rows)},
        splits={split: splits.count(split) for split in SPLITS},
        classes=class_names(row["label"] for row in rows if row["label"] is not None),
        image_shape=(*image.size, image.channels),
        shards=("0.parquet", "1.parquet"),
        manifest="fake",
        manifest_digest="fake",
        image=image,
    )
    write_dataset(dataset)
    return dataset


def hostile(folder: Path | Folder, image: ImageOptions = OPTIONS) -> Dataset:
    """Every hostile text as an id and as a label, and two images without a label."""
    return make(folder, [*HOSTILE, "no label", "none"], [*HOSTILE[::-1], None, None], image)


def export(dataset: Dataset, to: str, **options: Any) -> Path:
    """Export it, and return where."""
    return Path(export_dataset(dataset, to=to, **options)["export"])


def content(dataset: Dataset) -> list[dict[str, Any]]:
    """What must come back: a value per image, in the order of the dataset, split by split."""
    folder = dataset.folder
    rows = [row for name in dataset.shards for row in pq.read_table(folder.path(f"images/{name}")).to_pylist()]
    for row in rows:
        row["image"] = pixels_of(row["image"], dataset.image).tolist()
        row["own"] = json.loads(row["own"]) if row["own"] else {}
    return sorted(rows, key=lambda row: SPLITS.index(row["split"]))


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _stored(pixels: np.ndarray, image: ImageOptions) -> bytes:
    if image.store == "raw":
        return pixels.tobytes()
    return png(pixels.squeeze()) if image.store == "original" else encode(pixels, image)
