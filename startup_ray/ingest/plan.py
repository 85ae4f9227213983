"""What an ingest has to do: the manifest cut into chunks, and of each row whether its outcome stands already.

    plan = make_plan(manifest.rows(), folder, folder, chunk_items, Again())
    plan.todo                          # chunks to commit, spooled in the second folder
    plan.kept                          # of their rows those that need not be fetched

A chunk that is committed is done. One that is not may still hold rows that a former state of the manifest had in
other chunks: items are known again by id and URL, wherever they stand now and whatever their label. So rows that
are added, removed, moved or labelled anew cost no request for the others. An image is known by what was blurred in it,
too: with other boxes it is fetched again. So is one whose body does not have the sha256 that the manifest names by now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from startup_ray.forgotten import NOTHING, Forgotten, forgotten_outcome, read_forgotten
from startup_ray.ingest.chunks import LEDGER, names_in, read_part, read_spool, spool, write_spool
from startup_ray.ingest.spill import insert, open_database, rows_of
from startup_ray.items import BadRow, Item
from startup_ray.job import IngestOptions, SplitOptions
from startup_ray.ledger import LOST, REPEATED_ID, Again, portless, redact
from startup_ray.manifest import open_manifest
from startup_ray.regions import blur_mark
from startup_ray.sources import Sources
from startup_ray.storage import Folder


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be committed."""

    chunks: dict[str, int]
    """Rows of every chunk of the manifest, in order."""
    todo: tuple[str, ...]
    """Chunks to commit, in order."""
    kept: int
    """Rows of `todo` whose outcome stands already."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What an ingest would do."""

    items: int
    to_fetch: int
    hosts: tuple[tuple[str, int], ...]
    """Of the items to fetch, the most frequent first."""
    bad: dict[str, int]
    """Rows of uncommitted chunks that are no items, by state."""

    def document(self) -> dict[str, Any]:
        """What `ingest --dry-run --json` prints under `fetch`."""
        hosts = [{"host": host, "items": number} for host, number in self.hosts]
        return {"items": self.items, "to_fetch": self.to_fetch, "bad_rows": self.bad, "hosts": hosts}


def plan_manifest(
    location: str,
    options: IngestOptions,
    sources: Sources,
    folder: Folder,
    spool_folder: Folder,
    chunk_items: int,
    again: Again,
) -> tuple[Plan, str]:
    """`make_plan` for the manifest at a location, and the manifest's digest.

    Args:
        sources: what its rows may name beside http(s).

    Raises:
        ManifestError: it cannot be read.
    """
    with open_manifest(location, options.columns, sources.judge) as manifest:
        rows, forgotten = demand_split(manifest.rows(), options.split), read_forgotten(folder)
        plan = make_plan(rows, folder, spool_folder, chunk_items, again, forgotten)
        return plan, manifest.digest()


def make_plan(
    rows: Iterable[Item | BadRow],
    folder: Folder,
    spool_folder: Folder,
    chunk_items: int,
    again: Again,
    forgotten: Forgotten = NOTHING,
) -> Plan:
    """Cut rows into chunks and spool those that are to be committed.

    Args:
        folder: of the dataset, whose committed chunks are read.
        spool_folder: where the spool is written, the same unless nothing is to be changed there.
        chunk_items: most rows of a chunk.
        again: which outcomes do not stand.
        forgotten: rows that are not fetched, and lose their URL. They count for the names of chunks as they are in the
            manifest, so that what is forgotten later moves no bounds.
    """
    committed = set(names_in(folder, LEDGER))
    done = {name for name in committed if not (again and _holds(folder, name, again))}
    chunks = spool(rows, spool_folder, chunk_items, done)
    todo = tuple(name for name in chunks if name not in done)
    if forgotten:
        _leave_out(spool_folder, todo, forgotten)
    sources = sorted((committed - chunks.keys()) | (committed & set(todo)))
    kept = _point_back(folder, spool_folder, todo, sources, again) if sources else 0
    return Plan(chunks=chunks, todo=todo, kept=kept)


def survey(plan: Plan, spool_folder: Folder) -> Survey:
    """What the spool of a plan holds. Memory grows with the number of hosts."""
    hosts, bad = Counter[str](), Counter[str]()
    for name in plan.todo:
        for spooled in read_spool(spool_folder, name):
            if isinstance(spooled.row, BadRow):
                bad[spooled.row.status] += 1
            elif spooled.part is None:
                hosts[_host(spooled.row.url)] += 1
    return Survey(
        items=sum(plan.chunks.values()), to_fetch=hosts.total(), hosts=tuple(hosts.most_common()), bad=dict(bad)
    )


def demand_split(rows: Iterable[Item | BadRow], options: SplitOptions) -> Iterator[Item | BadRow]:
    """With `split.by: manifest`, a row without a split is a bad one; all others as they are."""
    for row in rows:
        if options.by == "manifest" and isinstance(row, Item) and row.split is None:
            reason = "split is missing, and ingest.split.by is manifest"
            yield BadRow(position=row.position, id=row.id, url=redact(row.url), status="bad_item", reason=reason)
        else:
            yield row


def _host(url: str) -> str:
    """Name of the host that is asked, `s3://bucket`, or `file://`."""
    scheme, _, rest = url.partition("://")
    return (urlsplit(url).hostname or "") if scheme in ("http", "https") else f"{scheme}://{rest.partition('/')[0]}"


def _leave_out(spool_folder: Folder, todo: Sequence[str], forgotten: Forgotten) -> None:
    for name in todo:
        spooled = read_spool(spool_folder, name)
        taken = [forgotten.takes(item_id=one.row.id, url=one.row.url) for one in spooled]
        if any(taken):
            pairs = zip(spooled, taken, strict=True)
            write_spool(
                spool_folder, name, [replace(one, row=_blank(one.row)) if is_taken else one for one, is_taken in pairs]
            )


def _blank(row: Item | BadRow) -> BadRow:
    left = forgotten_outcome(row.id)
    return BadRow(position=row.position, id=left.id, url=left.url, status="forgotten", reason=left.reason)


def _holds(folder: Folder, name: str, again: Again) -> bool:
    statuses = read_part(folder, name, ["status"]).table["status"]
    return any(again.takes(status) for status in statuses.unique().to_pylist())


def _point_back(folder: Folder, spool_folder: Folder, todo: Sequence[str], sources: Sequence[str], again: Again) -> int:
    """Say in the spool where outcomes stand in former parts; returns how many do."""
    kept = 0
    with open_database() as database:
        _load_known(database, folder, sources, again)
        _load_wanted(database, spool_folder, todo)
        for chunk, found in groupby(rows_of(database, _FOUND), key=lambda row: row[0]):
            spooled = read_spool(spool_folder, todo[chunk])
            for _, line, part, place, attempts, stands in found:
                where = {"part": sources[part], "place": place} if stands else {"attempts": attempts}
                spooled[line] = replace(spooled[line], **where)
                kept += stands
            write_spool(spool_folder, todo[chunk], spooled)
    return kept


# Of several rows with the same id and URL one that stands, and of these one with an image. What was demoted for its id
# serves the row that repeats one: the first row must be told from it, or it would be demoted for its own sake.
_FOUND = """
WITH best AS (
    SELECT * FROM known
    QUALIFY row_number() OVER (PARTITION BY id, url, demoted, blur ORDER BY NOT stands, status <> 'ok', part, place) = 1
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY id, url ORDER BY chunk, line) = 1 AS is_first FROM wanted
)
SELECT chunk, line, part, place, attempts,
    stands AND (sha256 IS NULL OR coalesce(sha256 = named, TRUE) = (status <> 'changed')) AS holds
FROM numbered JOIN best ON best.id = numbered.id AND best.url = numbered.url
    AND (best.blur IS NULL OR best.blur = numbered.blur)
QUALIFY row_number() OVER (PARTITION BY chunk, line ORDER BY is_first AND demoted, NOT stands, status <> 'ok') = 1
ORDER BY chunk, line
"""


def _load_known(database: Any, folder: Folder, sources: Sequence[str], again: Again) -> None:
    database.execute(
        "CREATE TABLE known (id VARCHAR, url VARCHAR, part INTEGER, place INTEGER, attempts INTEGER, "
        "status VARCHAR, stands BOOLEAN, demoted BOOLEAN, sha256 VARCHAR, blur VARCHAR)"
    )
    for part, name in enumerate(sources):
        table = read_part(folder, name, ["id", "url", "attempts", "status", "reason", "sha256"]).table
        stands = {status: status != LOST and not again.takes(status) for status in table["status"].unique().to_pylist()}
        columns = {
            "id": table["id"],
            "url": pa.array(map(portless, table["url"].to_pylist()), pa.string()),
            "place": pa.array(range(table.num_rows), pa.int32()),
            "attempts": table["attempts"],
            "status": table["status"],
            "stands": pa.array(map(stands.__getitem__, table["status"].to_pylist()), pa.bool_()),
            "demoted": pc.starts_with(table["reason"], REPEATED_ID),
            "sha256": table["sha256"],
            # Of an image what was blurred in it, empty for nothing; boxes change nothing in what is none.
            "blur": pc.if_else(pc.equal(table["status"], "ok"), table["reason"], None),
        }
        query = "INSERT INTO known SELECT id, url, ?, place, attempts, status, stands, demoted, sha256, blur FROM fresh"
        insert(database, query, pa.table(columns), [part])


def _load_wanted(database: Any, spool_folder: Folder, todo: Sequence[str]) -> None:
    database.execute(
        "CREATE TABLE wanted (chunk INTEGER, line INTEGER, id VARCHAR, url VARCHAR, named VARCHAR, blur VARCHAR)"
    )
    for chunk, name in enumerate(todo):
        rows = [spooled.row for spooled in read_spool(spool_folder, name)]
        items = [
            (line, row.id, portless(redact(row.url)), _named_sha256(row), blur_mark(row.blur))
            for line, row in enumerate(rows)
            if isinstance(row, Item)
        ]
        names = ["line", "id", "url", "named", "blur"]
        columns = [pa.array(values) for values in zip(*items, strict=True)] if items else []
        if columns:
            query = "INSERT INTO wanted SELECT ?, line, id, url, named, blur FROM fresh"
            insert(database, query, pa.table(columns, names=names), [chunk])


def _named_sha256(row: Item) -> str | None:
    """What the manifest says of the body; of other hashes nobody knows any more whether it had them."""
    named = dict(one.split(":") for one in (row.hashes or "").split())
    return named.get("sha256")
