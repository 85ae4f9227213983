"""Small stand-ins made by hand: tiny images, a tiny dataset on disk, a clock."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from startup_ray.dataset import SPLITS, Dataset, Digest, class_names, image_schema, write_dataset
from startup_ray.ingest.chunks import LEDGER, names_in, read_part
from startup_ray.ingest_options import ColumnOptions, ImageOptions
from startup_ray.items import http_only
from startup_ray.manifest import Manifest
from startup_ray.manifests.contents import ListFile
from startup_ray.manifests.forms import Kind
from startup_ray.manifests.streams import Readable, Stream
from startup_ray.storage import Folder


def read_ledger(folder: Folder) -> list[dict[str, Any]]:
    """The rows of a ledger, in manifest order."""
    return [row for name in names_in(folder, LEDGER) for row in read_part(folder, name).table.to_pylist()]


def manifest_of(stream: Readable, kind: Kind) -> Manifest:
    """The manifest `m` in a stream of bytes."""
    columns = ColumnOptions()
    return Manifest(ListFile(Stream(stream, "m"), kind, "m", columns), "m", columns, http_only)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W], [H, W, 3] or [H, W, 4] -> PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def patterns(rows: int, classes: int = 3, size: int = 8, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Images that a small net learns fast: uint8 [rows, size, size] with one bright band per class; labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (rows, size, size), np.uint8)
    labels = rng.integers(0, classes, rows)
    for image, label in zip(images, labels, strict=True):
        band = size // classes
        image[label * band : (label + 1) * band] += 120
    return images, [str(label) for label in labels]


def make_dataset(
    folder: Folder,
    images: np.ndarray,
    labels: Sequence[str | None],
    splits: Sequence[str],
    *,
    shards: int = 2,
) -> Dataset:
    """Write a dataset of uint8 [N, H, W] or [N, H, W, 3], spread over shards out of id order."""
    ids = [f"{i:05d}" for i in range(len(images))]
    bodies = [png(image) for image in images]
    hashes = [hashlib.sha256(body).hexdigest() for body in bodies]
    height, width = images.shape[1:3]
    image = ImageOptions(size=(height, width), channels=1 if images.ndim == 3 else 3)
    size = {"width": [width] * len(ids), "height": [height] * len(ids)}
    columns = {
        "id": ids,
        "sha256": hashes,
        "label": list(labels),
        "split": list(splits),
        **size,
        "own": [None] * len(ids),
        "image": bodies,
    }
    table = pa.table(columns, schema=image_schema())
    names = []
    for shard in range(shards):
        stream = io.BytesIO()
        pq.write_table(table.take(list(range(len(ids)))[shard::shards]), stream)
        names.append(f"{shard:06d}.parquet")
        folder.put_whole(f"images/{names[-1]}", stream.getvalue())
    digest = Digest()
    digest.update(zip(ids, hashes, labels, splits, strict=True))
    dataset = Dataset(
        folder=folder,
        digest=digest.text(),
        items=len(ids),
        counts={"ok": len(ids)},
        splits={split: list(splits).count(split) for split in SPLITS},
        classes=class_names(label for label in labels if label is not None),
        image_shape=image.shape,
        shards=tuple(names),
        manifest="fake",
        manifest_digest="fake",
        image=image,
    )
    write_dataset(dataset)
    return dataset
