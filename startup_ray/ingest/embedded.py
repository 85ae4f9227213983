"""Images embedded in Parquet files: a column of bytes, or of structs with `bytes` as Hugging Face's `datasets` writes.

    images = Embedded("image")
    images.read(lambda: open("x.parquet", "rb"), "file:///data/x.parquet", group=0, row=7)      # bytes
    images.close()

A file is opened and a row group decoded once, as long as its rows are asked for in ascending order: a cursor keeps
its place in a group, and the batch in which that lies. A group that is read from several places at once gets several.
So memory is bounded by cursors, batches and pages, however large a row group is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CURSORS = 6
"""Kept at once: a worker has three chunks in work, each of which may end in one group and begin in the next."""
BATCH_BYTES = 2**24
"""Of the images of one batch, as far as those of a group are equally large."""
BUFFER_BYTES = 2**22
"""Of one read; without a buffer all of a group's column would be in memory."""


class Embedded:
    """Reads one column of any files. Rows of one group are asked for by one thread at a time."""

    def __init__(self, column: str, *, batch_bytes: int = BATCH_BYTES) -> None:
        self._column = column
        self._batch_bytes = batch_bytes
        self._lock = threading.Lock()
        self._cursors: list[_Cursor] = []  # the one used last at the end

    def read(self, open_file: Callable[[], Any], name: str, group: int, row: int) -> bytes:
        """The bytes in one row of a row group.

        Args:
            open_file: opens the Parquet file of this name.

        Raises:
            LookupError: no such column, row group or row, or nothing in it.
            OSError, pyarrow.ArrowException: it cannot be read, or is damaged.
        """
        cursor = self._take(name, group, row) or _Cursor(open_file(), name, group, self._column, self._batch_bytes)
        try:
            body = cursor.read(row)
        except BaseException:
            cursor.close()
            raise
        self._keep(cursor)
        return body

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for cursor in self._cursors:
                cursor.close()
            self._cursors.clear()

    def _take(self, name: str, group: int, row: int) -> _Cursor | None:
        """The cursor with the shortest way to go; it is nobody else's until it is kept again."""
        with self._lock:
            able = [cursor for cursor in self._cursors if cursor.place == (name, group) and cursor.start <= row]
            best = max(able, key=lambda cursor: cursor.start, default=None)
            if best is not None:
                self._cursors.remove(best)
            return best

    def _keep(self, cursor: _Cursor) -> None:
        with self._lock:
            self._cursors.append(cursor)
            for old in self._cursors[:-CURSORS]:
                old.close()
            del self._cursors[:-CURSORS]


class _Cursor:
    """A place in a row group, which only moves on."""

    def __init__(self, file: Any, name: str, group: int, column: str, batch_bytes: int) -> None:
        self.place = (name, group)
        self.start = 0
        """First row of the batch in hand."""
        self._file = file
        self._batch = pa.array([], pa.binary())
        self._batches = _batches(file, group, column, batch_bytes)

    def read(self, row: int) -> bytes:
        while row >= self.start + len(self._batch):
            batch = next(self._batches, None)
            if batch is None:
                raise LookupError("no such row")
            self.start += len(self._batch)
            self._batch = batch
        value = self._batch[row - self.start].as_py()
        if value is None:
            raise LookupError("no bytes in this row")
        return bytes(value)

    def close(self) -> None:
        self._batch = None
        self._file.close()


def _batches(file: Any, group: int, column: str, batch_bytes: int) -> Iterator[Any]:
    """The column's bytes in a row group, as arrays of pyarrow."""
    parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    is_struct = _is_struct(parquet.schema_arrow, column)
    if group >= parquet.metadata.num_row_groups:
        raise LookupError("no such row group")
    path = f"{column}.bytes" if is_struct else column
    # Asked for the sizes of single columns of a damaged file, pyarrow 26 ends the process.
    rows = _rows_per_batch(parquet.metadata.row_group(group), batch_bytes)
    for batch in parquet.iter_batches(rows, row_groups=[group], columns=[path], use_threads=False):
        yield pc.struct_field(batch.column(0), "bytes") if is_struct else batch.column(0)


def _is_struct(schema: Any, column: str) -> bool:
    """Whether the bytes lie in a struct; LookupError if there are none."""
    index = schema.get_field_index(column)
    kind = schema.field(index).type if index >= 0 else pa.null()
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if is_struct:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise LookupError(f"no column {column[:60]!r} of bytes")
    return bool(is_struct)


def _rows_per_batch(group: Any, batch_bytes: int) -> int:
    return int(max(1, min(group.num_rows, group.num_rows * batch_bytes // max(group.total_byte_size, 1))))
