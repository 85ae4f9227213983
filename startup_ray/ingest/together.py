"""Near duplicates in one split: images that resemble each other take the split of the one that stands first.

    shards = keep_together(folder, {chunk: shard}, options.image, fence)

Laws. What comes later in the manifest changes no split of what stands before (see `likeness`). And history does not
count: a shard keeps the splits that its images would have on their own in its Parquet metadata, so that after any
change of the manifest, or a kill, the result is that of a fresh ingest. A new shard stands before a part names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from startup_ray.dataset import SPLITS
from startup_ray.ingest.chunks import read_part, read_shard, write_part
from startup_ray.job import ImageOptions
from startup_ray.lease import Fence
from startup_ray.likeness import NOTHING, Sketchbook, picture_of, small
from startup_ray.storage import Folder
from startup_ray.stored import DAMAGED, pixels_of

BATCH = 256
_APART = b"splits_apart"
"""Key of a shard's metadata: JSON, split by id, of the images whose split is not their own."""


def keep_together(folder: Folder, shards: Mapping[str, str], image: ImageOptions, fence: Fence) -> dict[str, str]:
    """Write the shards anew whose images change their split; the new names by chunk.

    Args:
        shards: shard by chunk, in the manifest's order; empty for a chunk without images.
        image: how images are stored.

    Raises:
        RunHeldError: another process has taken over the folder.
        StorageError: storage cannot be read or written.
    """
    own, firsts = _read(folder, [shard for shard in shards.values() if shard], image)
    wanted, changed, start = own[firsts], {}, 0
    for name, shard in shards.items():
        if not shard:
            continue
        splits = read_shard(folder, shard, ["id", "split"])
        rows = slice(start, start + splits.num_rows)
        start = rows.stop
        apart = {
            item: SPLITS[mine]
            for item, mine, other in zip(splits["id"].to_pylist(), own[rows], wanted[rows], strict=True)
            if mine != other
        }
        column = pa.array([SPLITS[split] for split in wanted[rows]], pa.string())
        if splits["split"].combine_chunks() != column or _apart(splits) != apart:
            fence.check()
            changed[name] = _rewrite(folder, name, shard, column, apart)
    return changed


def _read(folder: Folder, shards: list[str], image: ImageOptions) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Of all images in order: the split of each on its own, a place in SPLITS, and which one it resembles."""
    own: list[int] = []
    with Sketchbook() as book, ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            table = read_shard(folder, shard)
            apart = _apart(table)
            pairs = zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True)
            own += [SPLITS.index(apart.get(item, split)) for item, split in pairs]
            for batch in table.select(["image"]).to_batches(BATCH):
                book.add(np.stack(list(pool.map(partial(_sketch, image), batch["image"].to_pylist()))))
        return np.array(own, np.int8), book.firsts()


def _sketch(image: ImageOptions, encoded: bytes) -> NDArray[np.uint8]:
    try:
        return small(picture_of(pixels_of(encoded, image)))
    except DAMAGED:
        return NOTHING


def _apart(table: pa.Table) -> dict[str, str]:
    found: dict[str, str] = json.loads((table.schema.metadata or {}).get(_APART, b"{}"))
    return found


def _rewrite(folder: Folder, name: str, shard: str, splits: pa.Array, apart: dict[str, str]) -> str:
    images = read_shard(folder, shard)
    images = images.set_column(images.schema.get_field_index("split"), "split", splits)
    images = images.replace_schema_metadata({_APART: json.dumps(apart)} if apart else None)
    return write_part(folder, name, read_part(folder, name).table, images)
