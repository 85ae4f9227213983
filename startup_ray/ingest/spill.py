"""Tables larger than memory: DuckDB, which spills to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

MEMORY = "512MB"
_BATCH = 10_000


@contextmanager
def open_database() -> Iterator[Any]:
    """An empty `duckdb.DuckDBPyConnection` that uses at most MEMORY, and a temporary folder beyond that."""
    with tempfile.TemporaryDirectory(prefix="startup-ray-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "threads": 1,
            "temp_directory": spill,
        }
        with duckdb.connect(":memory:", config=config) as database:
            yield database


def insert(database: Any, query: str, fresh: pa.Table, values: list[Any] | None = None) -> None:
    """Run an INSERT that selects from the table `fresh`."""
    database.register("fresh", fresh)
    database.execute(query, values or [])
    database.unregister("fresh")


def rows_of(database: Any, query: str) -> Iterator[Any]:
    """Rows of a query as tuples, a batch of them held at a time."""
    cursor = database.cursor().execute(query)
    while rows := cursor.fetchmany(_BATCH):
        yield from rows
