"""Images of a dataset by id, small enough for a page, with what the ledger says of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from startup_ray.dataset import Dataset
from startup_ray.dataset_tables import ledger_tables

THUMBNAIL_SIZE = 80  # pixels; smaller images are kept as they are


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the dataset; texts are empty where nothing is known."""

    image: str = ""
    """`data:` URI."""
    url: str = ""
    sha256: str = ""
    """Hex digest of the fetched body."""


def pictures(dataset: Dataset, ids: Collection[str]) -> dict[str, Picture]:
    """Those of the ids that are there, or were."""
    urls, images = _urls(dataset, ids), _images(dataset, ids)
    found = {}
    for name in ids:
        sha256, body = images.get(name, ("", b""))
        found[name] = Picture(image=thumbnail(body, dataset) if body else "", url=urls.get(name, ""), sha256=sha256)
    return found


def thumbnail(encoded: bytes, dataset: Dataset) -> str:
    """A stored image -> `data:` URI of a PNG of at most THUMBNAIL_SIZE pixels a side; empty if it is damaged."""
    from PIL import Image

    from startup_ray.stored import DAMAGED, pixels_of

    try:
        pixels = pixels_of(encoded, dataset.image)
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    except DAMAGED:
        return ""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def shards(dataset: Dataset) -> Iterable[Any]:
    """`pyarrow.parquet.ParquetFile` of each shard that can be opened."""
    filesystem, root = dataset.folder.filesystem()
    for name in dataset.shards:
        try:
            yield pq.ParquetFile(f"{root}/images/{name}", filesystem=filesystem)
        except (OSError, ValueError):  # gone or damaged since
            continue


def _urls(dataset: Dataset, ids: Collection[str]) -> dict[str, str]:
    keep = pc.field("id").isin(sorted(ids))
    tables = ledger_tables(dataset, ["id", "url"], keep) if ids else ()
    return {row["id"]: row["url"] for table in tables for row in table.to_pylist()}


def _images(dataset: Dataset, ids: Collection[str]) -> dict[str, tuple[str, bytes]]:
    """sha256 and image file by id. Ids are read first, and images only of the row groups that hold one."""
    found: dict[str, tuple[str, bytes]] = {}
    for shard in shards(dataset) if ids else ():
        for group in range(shard.num_row_groups):
            here = shard.read_row_group(group, ["id"])["id"].to_pylist()
            places = [i for i, item in enumerate(here) if item in ids]
            if places:
                rows = shard.read_row_group(group, ["id", "sha256", "image"]).take(places).to_pylist()
                found |= {row["id"]: (row["sha256"], row["image"]) for row in rows}
    return found
