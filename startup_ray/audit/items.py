"""What the ledger tells: failures by host and state, exact duplicates, and how long bodies are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from startup_ray.audit.finding import IMAGES, ITEMS, Finding, counted
from startup_ray.dataset import Dataset
from startup_ray.dataset_tables import ledger_tables
from startup_ray.ingest.spill import insert, open_database, rows_of
from startup_ray.ledger import FORGOTTEN, NOT_FAILED
from startup_ray.slices import host_of

MAX_ROWS = 30
"""Of a table."""
NO_HOST = "(no host)"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Items of one host that ended in one state, with the first of them."""

    host: str
    status: str
    items: int
    id: str
    url: str
    """Without secrets, as the ledger has it."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """An image whose body came more than once."""

    id: str
    """Of the item that was kept."""
    others: int
    example: str
    """Id of one that was left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    failures: list[Failure] = field(default_factory=list)
    """The most frequent."""
    hosts: int = 0
    """That have failures."""
    repeated: list[Repeated] = field(default_factory=list)
    """The most frequent."""
    groups: int = 0
    """Of equal bodies."""
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Bytes of each body that became an image."""


def read_items(dataset: Dataset) -> Items:
    """Read the ledger once, file by file; what is counted lies in DuckDB."""
    sizes = [np.zeros(0, np.int64)]
    with open_database() as database:
        database.execute(
            "CREATE TABLE left_out "
            "(place BIGINT, host VARCHAR, status VARCHAR, id VARCHAR, url VARCHAR, reason VARCHAR)"
        )
        place = 0
        for table in ledger_tables(dataset, ["id", "url", "status", "reason", "bytes"]):
            is_ok = pc.equal(table["status"], "ok")
            is_told = pc.invert(pc.is_in(table["status"], pa.array(["ok", FORGOTTEN])))
            sizes.append(np.asarray(table["bytes"].filter(is_ok).fill_null(0).to_numpy(), np.int64))
            place = _insert(database, table.filter(is_told), place)
        failures, hosts = _failures(database)
        repeated, groups = _repeated(database)
    return Items(failures=failures, hosts=hosts, repeated=repeated, groups=groups, sizes=np.concatenate(sizes))


def findings(dataset: Dataset, items: Items) -> list[Finding]:
    """Failures and exact duplicates."""
    failed = {status: number for status, number in dataset.counts.items() if status not in NOT_FAILED}
    states = [f"{number:,} {status}" for status, number in failed.items()]
    return [
        Finding(
            kind="failures",
            count=sum(failed.values()),
            of=dataset.items,
            unit=ITEMS,
            note=", ".join(states[:4]) + (" and others" if len(states) > 4 else ""),
            names=tuple(failure.id for failure in items.failures),
        ),
        Finding(
            kind="exact_duplicates",
            count=dataset.counts.get("duplicate", 0),
            of=dataset.items,
            unit=ITEMS,
            note=f"of {counted(items.groups, *IMAGES)}",
            names=tuple(group.example for group in items.repeated),
        ),
    ]


def _insert(database: Any, table: Any, place: int) -> int:
    """Add the rows; the place of the next one."""
    hosts = pa.array([host_of(url, NO_HOST) for url in table["url"].to_pylist()], pa.string())
    places = pa.array(range(place, place + table.num_rows), pa.int64())
    fresh = table.append_column("host", hosts).append_column("place", places)
    insert(database, "INSERT INTO left_out SELECT place, host, status, id, url, reason FROM fresh", fresh)
    return place + len(hosts)


def _failures(database: Any) -> tuple[list[Failure], int]:
    query = f"""
        SELECT host, status, count(*), arg_min(id, place), arg_min(url, place), arg_min(reason, place)
        FROM left_out WHERE status <> 'duplicate' GROUP BY host, status
        ORDER BY count(*) DESC, host, status LIMIT {MAX_ROWS}"""  # noqa: S608 - no outside value
    found = [
        Failure(host=host, status=status, items=items, id=name or "", url=url or "", reason=reason or "")
        for host, status, items, name, url, reason in rows_of(database, query)
    ]
    ((hosts,),) = rows_of(database, "SELECT count(DISTINCT host) FROM left_out WHERE status <> 'duplicate'")
    return found, hosts


def _repeated(database: Any) -> tuple[list[Repeated], int]:
    query = f"""
        SELECT reason, count(*), arg_min(id, place) FROM left_out
        WHERE status = 'duplicate' GROUP BY reason ORDER BY count(*) DESC, reason LIMIT {MAX_ROWS}"""  # noqa: S608
    found = [Repeated(id=owner or "", others=n, example=name or "") for owner, n, name in rows_of(database, query)]
    ((groups,),) = rows_of(database, "SELECT count(DISTINCT reason) FROM left_out WHERE status = 'duplicate'")
    return found, groups
