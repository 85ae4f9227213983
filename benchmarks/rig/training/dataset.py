"""A dataset of startup_ray in a folder, as an ingest would have left it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rig.training import rows
from rig.training.case import Net
from startup_ray.dataset import SPLITS, Dataset, Digest, class_names, image_schema, read_dataset, write_dataset
from startup_ray.runs import DATASET
from startup_ray.storage import Folder, open_folder

VALIDATION_ROWS = 512


def written(place: Path, net: Net) -> Dataset:
    """As many rows to train on as the net has, and some to validate; written if it is not there."""
    folder = open_folder(str(place))
    return read_dataset(folder) if folder.exists(DATASET) else _write(folder, net)


def _write(folder: Folder, net: Net) -> Dataset:
    images, labels = rows.make(net)
    images, labels = (np.concatenate([part, part[:VALIDATION_ROWS]]) for part in (images, labels))
    splits = ["train"] * net.rows + ["val"] * VALIDATION_ROWS
    ids, names = [f"{number:06d}" for number in range(len(images))], [str(label) for label in labels]
    bodies = [_png(image) for image in images]
    hashes = [hashlib.sha256(body).hexdigest() for body in bodies]
    height, width, _ = net.shape
    size = {"width": [width] * len(ids), "height": [height] * len(ids)}
    columns = {
        "id": ids,
        "sha256": hashes,
        "label": names,
        "split": splits,
        **size,
        "own": [None] * len(ids),
        "image": bodies,
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, schema=image_schema()), stream)
    folder.put_whole("images/000000.parquet", stream.getvalue())
    digest = Digest()
    digest.update(zip(ids, hashes, names, splits, strict=True))
    dataset = Dataset(
        folder=folder,
        digest=digest.text(),
        items=len(ids),
        counts={"ok": len(ids)},
        splits={split: splits.count(split) for split in SPLITS},
        classes=class_names(names),
        image_shape=net.shape,
        shards=("000000.parquet",),
        manifest="made",
        manifest_digest="made",
    )
    write_dataset(dataset)
    return dataset


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "PNG")
    return stream.getvalue()
