"""A dataset of any length from scikit-learn's 8x8 digits, each scaled up and moved by some pixels of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from startup_ray.dataset import Dataset, image_schema, write_dataset
from startup_ray.ingest.chunks import MOST_ROWS
from startup_ray.ingest.encode import encode
from startup_ray.job import ImageOptions
from startup_ray.storage import Folder


def make_digits(folder: Folder, rows: int, *, val: int = 256, options: ImageOptions, split: str = "train") -> Dataset:
    """`rows` labelled images of a split, and `val` to validate with, in shards as long as those that ingest writes."""
    names, stream = [], images(options)
    for start in range(0, rows + val, MOST_ROWS):
        part = list(islice(stream, min(MOST_ROWS, rows + val - start)))
        ids = [f"{i:09d}" for i in range(start, start + len(part))]
        bodies = [body for body, _ in part]
        height, width = options.size
        columns = {
            "id": ids,
            "sha256": [hashlib.sha256(name.encode()).hexdigest() for name in ids],
            "label": [label for _, label in part],
            "split": [split if i < rows else "val" for i in range(start, start + len(part))],
            "width": [width] * len(part),
            "height": [height] * len(part),
            "own": [None] * len(part),
            "image": bodies,
        }
        sink = io.BytesIO()
        table = pa.table(columns, schema=image_schema())
        pq.write_table(table, sink, compression={"image": "NONE"}, use_dictionary=["label", "split"])
        names.append(f"{start:09d}.parquet")
        folder.put_whole(f"images/{names[-1]}", sink.getvalue())
    dataset = Dataset(
        folder=folder,
        digest=f"sha256:{rows:016x}",
        items=rows + val,
        counts={"ok": rows + val},
        splits={"train": 0, "test": 0} | {split: rows, "val": val},
        classes=tuple("0123456789"),
        image_shape=(*options.size, options.channels),
        shards=tuple(names),
        manifest="digits",
        manifest_digest="digits",
    )
    write_dataset(dataset)
    return dataset


def images(options: ImageOptions) -> Iterator[tuple[bytes, str]]:
    """Encoded images and their labels, without end."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    height, width = options.size
    mode = "L" if options.channels == 1 else "RGB"
    for i in count():
        at = i % len(digits.images)
        image = Image.fromarray((digits.images[at] * 15.9).astype(np.uint8)).resize((width, height), Image.BICUBIC)
        pixels = np.roll(np.asarray(image.convert(mode)), rng.integers(-2, 3, 2), (0, 1))
        yield encode(pixels.reshape(height, width, options.channels), options), str(digits.target[at])
