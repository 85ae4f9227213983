"""The files of a dataset as tables, one after the other, so that little is held at once.

    for shard, batch in image_batches(dataset, ["id", "image"], rows=64):       # pyarrow.RecordBatch
        ...
    for table in ledger_tables(dataset, ["id", "status"]):                      # pyarrow.Table
        ...

Rows come in the order of the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from startup_ray.dataset import Dataset, damaged

BUFFER_BYTES = 2**20
"""Of one read of a column; without a buffer all of a row group would be in memory."""


def image_batches(dataset: Dataset, columns: Sequence[str], *, rows: int) -> Iterator[tuple[str, Any]]:
    """Name of a shard and at most so many of its rows, of all shards.

    Raises:
        StorageError: a shard cannot be read.
    """
    import pyarrow.parquet as pq

    filesystem, root = dataset.folder.filesystem()
    for shard in dataset.shards:
        try:
            with filesystem.open_input_file(f"{root}/images/{shard}") as stream:
                file = pq.ParquetFile(stream, buffer_size=BUFFER_BYTES)
                for batch in file.iter_batches(rows, columns=list(columns)):
                    yield shard, batch
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise damaged(dataset, shard, error) from error


def ledger_tables(dataset: Dataset, columns: Sequence[str], keep: Any = None) -> Iterator[Any]:
    """Each file of the ledger.

    Args:
        keep: `pyarrow.compute.Expression` of the rows that are wanted, all by default.
    """
    import pyarrow.parquet as pq

    filesystem, root = dataset.folder.filesystem()
    for name in dataset.folder.list("ledger"):
        yield pq.read_table(f"{root}/ledger/{name}", columns=list(columns), filters=keep, filesystem=filesystem)
