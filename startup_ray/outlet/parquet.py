"""Parquet as Hugging Face's `datasets` reads and writes it, with embedded images.

    data/train-00000-of-00004.parquet:  image {bytes, path}, label, id, split, sha256, width, height, own

The schema's metadata has the features under the key `huggingface`: `image` is an `Image`, and `label` a `ClassLabel`
with the names of the classes, -1 for none (`datasets.features`, `datasets.arrow_writer.ArrowWriter`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from startup_ray.dataset import Dataset
from startup_ray.outlet.parts import Add, Work, write_parts
from startup_ray.outlet.rows import Row

PART = "data/{split}-{number:05d}-of-{total:05d}.parquet"
ROW_BYTES = 200
GROUP_ROWS, GROUP_BYTES = 1_000, 2**25
"""Most rows of a row group, and bytes of its images: readers hold whole groups."""
_VALUES = {
    **dict.fromkeys(("id", "split", "sha256"), pa.string()),
    **dict.fromkeys(("width", "height"), pa.int32()),
    "own": pa.string(),
}


def write(work: Work) -> None:
    """Write all parts."""
    write_parts(work, PART, open_part, row_bytes=ROW_BYTES)


def schema_of(dataset: Dataset) -> pa.Schema:
    """Of every part."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": list(dataset.classes), "_type": "ClassLabel"}}
    features |= {name: {"dtype": str(dtype), "_type": "Value"} for name, dtype in _VALUES.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([("image", image), ("label", pa.int64()), *_VALUES.items()], metadata=metadata)


@contextmanager
def open_part(path: Path, dataset: Dataset) -> Iterator[Add]:
    """A Parquet file that rows are added to."""
    schema = schema_of(dataset)
    # Images are compressed already, and a dictionary of images is a second copy of them.
    codec = {"image.bytes": "NONE"} | dict.fromkeys(["image.path", "label", *_VALUES], "ZSTD")
    with pq.ParquetWriter(path, schema, compression=codec, use_dictionary=False, write_statistics=False) as writer:
        group = _Group(writer)
        yield group.add
        group.write()


@dataclass
class _Group:
    """Rows that become the next row group."""

    writer: pq.ParquetWriter
    rows: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0

    def add(self, row: Row) -> None:
        image = {"bytes": row.image, "path": f"{row.number:09d}.{row.ending}"}
        values = {name: getattr(row, name) for name in _VALUES}
        self.rows.append({"image": image, "label": row.index, **values})
        self.size += len(row.image)
        if len(self.rows) >= GROUP_ROWS or self.size >= GROUP_BYTES:
            self.write()

    def write(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.writer.schema))
        self.rows, self.size = [], 0
