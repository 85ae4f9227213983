"""The seal: what one chunk cannot know. Repeated ids and bodies, counts, classes and the digest.

    sealed = seal(folder, names, fence)
    sealed.lost                   # chunks to fetch again before the seal can hold; usually none

Lowest position wins: the first row with an id owns it, later ones become `bad_item`; of images with equal
sha256 the first is kept, later ones become `duplicate` and lose their place in `images/`. Done again it changes
nothing, whatever it was killed at: a part's new shard stands before the part names it, and the old one goes
after. Memory is bounded: rows are sorted by DuckDB, which spills to disk, and parts are touched one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import pyarrow as pa

from startup_ray.dataset import SPLITS, Digest, class_names
from startup_ray.ingest.chunks import (
    CHUNKS,
    IMAGES,
    LEDGER,
    Part,
    names_in,
    read_part,
    read_shard,
    replace_part,
    write_part,
)
from startup_ray.ingest.spill import insert, open_database, rows_of
from startup_ray.ingest.together import keep_together
from startup_ray.job import ImageOptions
from startup_ray.lease import Fence
from startup_ray.ledger import FORGOTTEN, LOST, REPEATED_ID
from startup_ray.regions import BLURRED
from startup_ray.storage import Folder

# First the owner of each id, then, among images whose id is theirs, the owner of each body. `was_image` is a row
# that has or had pixels, `was_repeated` one that an earlier seal has demoted for its id.
_VERDICTS = f"""
CREATE TABLE verdicts AS
WITH named AS (
    SELECT *,
        status = 'bad_item' AND starts_with(reason, '{REPEATED_ID}') AS was_repeated,
        CASE WHEN id = '' THEN position ELSE min(position) OVER (PARTITION BY id) END AS id_owner
    FROM ledger
), imaged AS (
    SELECT *, id_owner < position AND (status NOT IN ('bad_item', '{FORGOTTEN}') OR was_repeated) AS is_repeated,
        status IN ('ok', 'duplicate') AS was_image
    FROM named
), owned AS (
    SELECT *, first(id) OVER body AS owner_id, first(position) OVER body AS owner
    FROM imaged
    WINDOW body AS (PARTITION BY sha256, was_image AND NOT is_repeated ORDER BY position
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
SELECT id, part, place, status AS old_status, reason AS old_reason,
    CASE WHEN is_repeated THEN 'bad_item'
         WHEN was_repeated OR status = '{LOST}' THEN '{LOST}'
         WHEN NOT was_image THEN status
         WHEN owner < position THEN 'duplicate'
         WHEN status = 'duplicate' THEN '{LOST}'
         ELSE 'ok' END AS status,
    CASE WHEN is_repeated THEN '{REPEATED_ID}' || id_owner
         WHEN was_image AND owner < position THEN owner_id
         ELSE reason END AS reason
FROM owned
"""  # noqa: S608 - no outside value


# What was blurred in an image is not told by its body.
_IMAGES = f"""
SELECT images.id, concat_ws(' ', sha256, reason), label, split
FROM images LEFT JOIN verdicts ON verdicts.id = images.id AND status = 'ok' AND starts_with(reason, '{BLURRED}')
ORDER BY images.id
"""  # noqa: S608 - no outside value


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What the seal found. With `lost` chunks the rest is empty."""

    lost: tuple[str, ...] = ()
    """Chunks to commit again: one never was, or holds items that an earlier manifest made needless (LOST)."""
    items: int = 0
    counts: dict[str, int]
    splits: dict[str, int]
    classes: tuple[str, ...] = ()
    digest: str = ""
    shards: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Fields of the `Dataset` that it makes."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lost"}


def seal(folder: Folder, names: Sequence[str], fence: Fence, alike: ImageOptions | None = None) -> Sealed:
    """Settle the committed chunks of a manifest, whose names in order are given.

    Args:
        alike: how images are stored, if those that resemble each other are to be kept in one split.

    Raises:
        RunHeldError: another process has taken over the folder.
        StorageError: storage cannot be read or written.
    """
    fence.check()
    shards = _shards(folder, names)
    missing = tuple(name for name in names if name not in shards)
    if missing:
        for name in missing:
            fence.check()
            folder.delete(f"{LEDGER}/{name}.parquet")
        return Sealed(lost=missing, counts={}, splits={})
    _remove_strangers(folder, names, fence)  # only now: chunks that are still to be committed may point to them
    with open_database() as database:
        _load_ledger(database, folder, names)
        database.execute(_VERDICTS)
        shards |= _carry_out(database, folder, names, fence)
        lost = rows_of(database, f"SELECT DISTINCT part FROM verdicts WHERE status = '{LOST}' ORDER BY part")  # noqa: S608
        if again := tuple(names[part] for (part,) in lost):
            return Sealed(lost=again, counts={}, splits={})
        if alike is not None:
            shards |= keep_together(folder, {name: shards[name] for name in names}, alike, fence)
        kept = [shard for name in names if (shard := shards[name])]
        remove_orphans(folder, kept, fence)
        return _summary(database, folder, kept)


def clear_spool(folder: Folder) -> None:
    """Remove what was still to be fetched; these files hold URLs with their secrets."""
    folder.delete(CHUNKS)


def remove_orphans(folder: Folder, shards: Sequence[str], fence: Fence) -> None:
    """Shards that no commit names, and what killed processes left half written."""
    named = set(shards)
    for shard in names_in(folder, IMAGES):
        if shard not in named:
            fence.check()
            folder.delete(f"{IMAGES}/{shard}.parquet")
    fence.check()
    folder.clear_drafts(IMAGES)
    folder.clear_drafts(LEDGER)


def _remove_strangers(folder: Folder, names: Sequence[str], fence: Fence) -> None:
    """Commits that are no part of this manifest: left by an earlier state of it."""
    ours = set(names)
    for name in names_in(folder, LEDGER):
        if name not in ours:
            fence.check()
            folder.delete(f"{LEDGER}/{name}.parquet")


def _shards(folder: Folder, names: Sequence[str]) -> dict[str, str]:
    """Shard of each chunk that is committed, empty without images; a chunk whose shard has gone is left out."""
    committed, present = set(names_in(folder, LEDGER)), {"", *names_in(folder, IMAGES)}
    shards = {name: read_part(folder, name, ["status"]).shard for name in names if name in committed}
    return {name: shard for name, shard in shards.items() if shard in present}


def _load_ledger(database: Any, folder: Folder, names: Sequence[str]) -> None:
    database.execute(
        "CREATE TABLE ledger (position BIGINT, part INTEGER, place INTEGER, "
        "id VARCHAR, status VARCHAR, reason VARCHAR, sha256 VARCHAR)"
    )
    position = 0
    for part, name in enumerate(names):
        table = read_part(folder, name, ["id", "status", "reason", "sha256"]).table
        place = pa.array(range(table.num_rows), pa.int32())
        query = "INSERT INTO ledger SELECT ? + place, ?, place, id, status, reason, sha256 FROM fresh"
        insert(database, query, table.append_column("place", place), [position, part])
        position += table.num_rows


def _carry_out(database: Any, folder: Folder, names: Sequence[str], fence: Fence) -> dict[str, str]:
    """Commit the verdicts that differ from the ledger; the shards of the chunks that they changed."""
    changed = rows_of(
        database,
        "SELECT part, place, status, reason FROM verdicts "
        "WHERE status <> old_status OR reason <> old_reason ORDER BY part, place",
    )
    shards = {}
    for part, rows in groupby(changed, key=lambda row: row[0]):
        fence.check()
        verdicts = {place: (status, reason) for _, place, status, reason in rows}
        shards[names[part]] = _rewrite(folder, names[part], verdicts)
    return shards


def _rewrite(folder: Folder, name: str, verdicts: dict[int, tuple[str, str]]) -> str:
    """Commit a part anew with these states and reasons by row, its shard without the images that went.

    Returns:
        The name of its shard from now on.
    """
    old = read_part(folder, name)
    before = old.table["status"].to_pylist()
    reasons = old.table["reason"].to_pylist()
    after = list(before)
    for place, (status, reason) in verdicts.items():
        after[place], reasons[place] = status, reason
    table = old.table
    for column, values in (("status", after), ("reason", reasons)):
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.string()))
    kept = [now == "ok" for was, now in zip(before, after, strict=True) if was == "ok"]
    if all(kept):
        replace_part(folder, name, Part(table, old.shard))
        return old.shard
    images = read_shard(folder, old.shard).filter(pa.array(kept))
    return write_part(folder, name, table, images)


def _summary(database: Any, folder: Folder, shards: Sequence[str]) -> Sealed:
    database.execute("CREATE TABLE images (id VARCHAR, sha256 VARCHAR, label VARCHAR, split VARCHAR)")
    for shard in shards:
        images = read_shard(folder, shard, ["id", "sha256", "label", "split"])
        insert(database, "INSERT INTO images SELECT id, sha256, label, split FROM fresh", images)
    digest = Digest()
    digest.update(rows_of(database, _IMAGES))
    counts = dict(rows_of(database, "SELECT status, count(*) FROM verdicts GROUP BY status"))
    splits = dict(rows_of(database, "SELECT split, count(*) FROM images GROUP BY split"))
    labels = rows_of(database, "SELECT DISTINCT label FROM images WHERE label IS NOT NULL")
    return Sealed(
        items=sum(counts.values()),
        counts=dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))),
        splits={split: splits.get(split, 0) for split in SPLITS},
        classes=class_names(label for (label,) in labels),
        digest=digest.text(),
        shards=tuple(f"{shard}.parquet" for shard in shards),
    )
