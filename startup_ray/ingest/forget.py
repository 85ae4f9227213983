"""Forgetting in one dataset: what it holds of what was forgotten goes, and then it is a dataset again.

    found = held(folder, listed)                # {'7': 'train', '9': ''}: id -> split; reads only
    with hold(folder) as lease:
        set_aside(folder)                       # no dataset from here on
        ...                                     # what was forgotten is listed, see `forgotten.py`
        erase(folder, listed, lease.fence)
        digest = restore(folder, lease.fence)   # and one again

Law: ingest, then forget, is what an ingest with the list from the start makes: the same rows, counts and digest. Since
no dataset stands while the list is written, a dataset that stands holds nothing of it, whenever a process was killed;
the next `forget` or ingest goes on, and done again each step changes nothing. A part's new shard stands before the part
names it, and the old one goes after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from startup_ray.dataset import image_schema, read_dataset, write_dataset
from startup_ray.errors import StorageError
from startup_ray.forgotten import Forgotten, forgotten_outcome
from startup_ray.ingest.chunks import (
    CHUNKS,
    IMAGES,
    LEDGER,
    Part,
    names_in,
    read_part,
    read_shard,
    read_spool,
    replace_part,
    write_part,
)
from startup_ray.ingest.seal import clear_spool, remove_orphans, seal
from startup_ray.lease import Fence
from startup_ray.ledger import FORGOTTEN, ledger_schema
from startup_ray.runs import AUDIT, DATASET
from startup_ray.storage import Folder

FORGETTING = "forgetting.json"
"""`dataset.json` as it was, from which it is made again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a dataset says of an item, wherever it does."""

    item_id: str
    url: str
    """With its secrets if it is still to be fetched."""
    sha256: str | None
    status: str
    """Of the ledger; empty for what is still to be fetched."""


def rows_in(folder: Folder) -> Iterator[Row]:
    """Rows of the ledger; of an unfinished dataset also what is to be fetched, and images that no commit names."""
    for name in names_in(folder, LEDGER):
        with suppress(FileNotFoundError):  # of a dataset at work
            yield from _ledger_rows(folder, name)
    if folder.exists(DATASET):
        return
    for name in names_in(folder, CHUNKS):
        with suppress(FileNotFoundError):
            for one in read_spool(folder, name):
                yield Row(item_id=one.row.id, url=one.row.url, sha256=None, status="")
    for shard in sorted(set(names_in(folder, IMAGES)) - _named(folder)):
        with suppress(FileNotFoundError):
            for image in read_shard(folder, shard, ["id", "sha256"]).to_pylist():
                yield Row(item_id=image["id"], url="", sha256=image["sha256"], status="ok")


def held(folder: Folder, forgotten: Forgotten) -> dict[str, str]:
    """Ids of what is to go, in order, each with the split of its image; empty where it is none."""
    found = {row.item_id: "" for row in rows_in(folder) if _takes(forgotten, row)}
    for shard in names_in(folder, IMAGES) if found else ():
        with suppress(FileNotFoundError):
            images = read_shard(folder, shard, ["id", "split"])
            pairs = zip(images["id"].to_pylist(), images["split"].to_pylist(), strict=True)
            found |= {name: split for name, split in pairs if name in found}
    return found


def is_set_aside(folder: Folder) -> bool:
    """Whether a process was killed that forgot something here."""
    return folder.exists(FORGETTING)


def set_aside(folder: Folder) -> None:
    """Make it no dataset, if it is one. Only the owner of its lease may."""
    with suppress(FileNotFoundError):
        folder.put_whole(FORGETTING, folder.read(DATASET))
        folder.delete(DATASET)


def erase(folder: Folder, forgotten: Forgotten, fence: Fence) -> None:
    """Take what was forgotten out of every commit; its row stays, with its id alone.

    Raises:
        RunHeldError: another process has taken over the folder.
    """
    for name in names_in(folder, LEDGER) if forgotten else ():
        taken = [_takes(forgotten, row) for row in _ledger_rows(folder, name)]
        if any(taken):
            fence.check()
            folder.delete(DATASET)
            _erase(folder, name, taken, fence)


def restore(folder: Folder, fence: Fence) -> str:
    """Remove what else may hold what was forgotten, and make a dataset that was set aside one again.

    Returns:
        Its digest; empty if an ingest is to go on here.

    Raises:
        RunHeldError: another process has taken over the folder.
        StorageError: images of it are missing.
    """
    fence.check()
    clear_spool(folder)
    folder.delete(AUDIT)  # it shows images, and can be made again
    folder.clear_drafts()
    if not is_set_aside(folder):
        remove_orphans(folder, sorted(_named(folder)), fence)
        return ""
    before = read_dataset(folder, FORGETTING)
    sealed = seal(folder, names_in(folder, LEDGER), fence, before.image if before.group else None)
    if sealed.lost:
        hint = "what was forgotten is gone; run `startup-ray ingest JOB` to fetch what else is missing"
        raise StorageError("images of this dataset are missing", where=str(folder), hint=hint)
    fence.check()
    write_dataset(replace(before, **sealed.facts()))
    folder.delete(FORGETTING)
    return sealed.digest


def _ledger_rows(folder: Folder, name: str) -> Iterator[Row]:
    names = ["id", "url", "sha256", "status"]
    table = read_part(folder, name, names).table
    for item_id, url, sha256, status in zip(*(table[column].to_pylist() for column in names), strict=True):
        yield Row(item_id=item_id, url=url, sha256=sha256, status=status)


def _takes(forgotten: Forgotten, row: Row) -> bool:
    return row.status != FORGOTTEN and forgotten.takes(item_id=row.item_id, url=row.url, sha256=row.sha256)


def _named(folder: Folder) -> set[str]:
    """Shards that a commit names."""
    shards = set()
    for name in names_in(folder, LEDGER):
        with suppress(FileNotFoundError):
            shards.add(read_part(folder, name, ["status"]).shard)
    return shards - {""}


def _erase(folder: Folder, name: str, taken: Sequence[bool], fence: Fence) -> None:
    old = read_part(folder, name)
    before = old.table.to_pylist()
    after = [
        asdict(forgotten_outcome(row["id"])) if is_taken else row for row, is_taken in zip(before, taken, strict=True)
    ]
    table = pa.Table.from_pylist(after, schema=ledger_schema())
    kept = [not is_taken for row, is_taken in zip(before, taken, strict=True) if row["status"] == "ok"]
    if all(kept):
        replace_part(folder, name, Part(table, old.shard))
        return
    images = read_shard(folder, old.shard).filter(pa.array(kept)) if any(kept) else image_schema().empty_table()
    write_part(folder, name, table, images)
    fence.check()
    folder.delete(f"{IMAGES}/{old.shard}.parquet")
