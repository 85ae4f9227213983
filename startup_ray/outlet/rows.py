"""The images of a dataset as rows that leave it, one at a time.

    for row in read_rows(dataset, ["train"]):
        row.id, row.index, row.kind, row.image      # 'cats/1', 0, 'PNG', b'\\x89PNG...'

Law: rows come in the order of the manifest, each once, and as many as `dataset.json` counts. Memory holds a batch of
them, never a split: files are read from their beginning to their end.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from startup_ray.dataset import NO_LABEL, Dataset, damaged, require_count
from startup_ray.dataset_tables import image_batches
from startup_ray.ingest.decode import sniff
from startup_ray.ingest.encode import encode_png
from startup_ray.stored import DAMAGED, pixels_of

BATCH_ROWS = 64
_COLUMNS = ("id", "sha256", "label", "split", "width", "height", "own", "image")
_ENDINGS = {"JPEG": "jpg"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image that leaves a dataset."""

    number: int
    """Place in its split, from 0."""
    id: str
    split: str
    label: str | None
    index: int
    """Of the class, its place in `dataset.classes`; NO_LABEL without a label."""
    sha256: str
    """Of the body that was fetched."""
    width: int
    """Of the original, in pixels."""
    height: int
    own: str | None
    """JSON object of the item's other columns."""
    image: bytes
    """As the dataset stores it; raw pixels as PNG."""
    kind: str
    """Pillow's name of the image's format, told by its bytes: JPEG, PNG, ..."""
    image_size: tuple[int, int]
    """Its height and width by its header, in pixels."""
    stored_bytes: int
    """Of the image in the dataset."""

    @property
    def ending(self) -> str:
        """Of a file's name, without the dot."""
        return _ENDINGS.get(self.kind, self.kind.lower())


def read_rows(dataset: Dataset, splits: Sequence[str]) -> Iterator[Row]:
    """Rows of these splits, in the order of the manifest.

    Raises:
        StorageError: files or images are damaged, or not those that `dataset.json` counts.
    """
    index_of: dict[str | None, int] = {name: index for index, name in enumerate(dataset.classes)}
    seen = Counter[str]()
    for shard, batch in _batches(dataset, splits, _COLUMNS):
        for fields in batch.to_pylist():
            stored, split = fields.pop("image"), fields["split"]
            try:
                fields |= _encoded(stored, dataset)
            except DAMAGED as error:
                raise damaged(dataset, shard, error) from error
            index = index_of.get(fields["label"], NO_LABEL)
            yield Row(**fields, number=seen[split], index=index, stored_bytes=len(stored))
            seen[split] += 1
    for split in splits:
        require_count(dataset, split, seen[split])


def read_sizes(dataset: Dataset, splits: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Split and `stored_bytes` of the rows that `read_rows` would give, in its order."""
    for _, batch in _batches(dataset, splits, ["split", "image"]):
        yield from zip(batch["split"].to_pylist(), pc.binary_length(batch["image"]).to_pylist(), strict=True)


def _batches(dataset: Dataset, splits: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Name of a shard, and `pyarrow.RecordBatch` of rows in these splits."""
    wanted = pa.array(splits, pa.string())
    for shard, batch in image_batches(dataset, columns, rows=BATCH_ROWS):
        yield shard, batch.filter(pc.is_in(batch["split"], value_set=wanted))


def _encoded(stored: bytes, dataset: Dataset) -> dict[str, Any]:
    """An image that any viewer opens: its bytes, format and size."""
    image = encode_png(pixels_of(stored, dataset.image)) if dataset.image.store == "raw" else stored
    kind = sniff(image)
    if kind is None:
        raise ValueError("an image of no known format")
    with Image.open(io.BytesIO(image), formats=[kind]) as opened:
        return {"image": image, "kind": kind, "image_size": (opened.height, opened.width)}
