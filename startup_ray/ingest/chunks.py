"""Chunks of a manifest, and their commits: what an ingest leaves on storage while it runs.

    chunks/<index>-<key>.parquet      rows still to be fetched; gone when the dataset is sealed
    chunks/<index>-<key>.tries        how often a worker has begun with them
    images/<index>-<key>-<n>.parquet  the images of a chunk, in the order of its ok rows
    ledger/<index>-<key>.parquet      one row per row of the chunk, in order: the commit record

A ledger part names its shard in its Parquet metadata; a shard that none names does not exist. So a chunk may be
done twice, or be killed at any point, and what counts is always one whole chunk. The key is made from the rows,
so that a changed manifest keeps the chunks that it did not change; of the others, each spooled row says where its
outcome stands already, if it does, and only the rest is fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from startup_ray.dataset import image_schema
from startup_ray.items import BadRow, Item
from startup_ray.job import ImageOptions
from startup_ray.ledger import Outcome, ledger_schema, portless, redact
from startup_ray.storage import Folder

CHUNKS, IMAGES, LEDGER = "chunks", "images", "ledger"
FIRST_ROWS, MOST_ROWS = 512, 8_192
"""Of a chunk. Later ones are larger, or a million images would lie in thousands of small files."""
MAX_CHUNK_BYTES = 2**26
"""Of the pixels of one chunk; an actor holds a few chunks, each with a copy on its way to storage."""
ASSUMED_BYTES = 2**20
"""Of an image that is kept as it came. Photographs on the web have less, those of cameras several times as much; at
worst a chunk holds 64 bodies of `fetch.max_bytes`, which by default are 1.3 GB: Arrow's columns break at 2 GiB."""
_GROWTH = 16
_SHARD = b"shard"
_TEXTS = ("id", "url", "label", "split", "status", "reason", "part", "own", "hashes", "blur")
_SPOOL = pa.schema(
    [
        ("position", pa.int64()),
        *((name, pa.string()) for name in _TEXTS),
        ("place", pa.int32()),
        ("attempts", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """A row of a chunk that is to be committed."""

    row: Item | BadRow
    part: str | None = None
    """The ledger part where its outcome stands already; None if it is to be fetched."""
    place: int | None = None
    """Its row there."""
    attempts: int = 0
    """Requests made for it before, if it is to be fetched once more."""


@dataclass(frozen=True)
class Part:
    """A committed ledger part: its table (`ledger_schema`) and the name of its shard, empty without images."""

    table: pa.Table
    shard: str


def items_per_chunk(options: ImageOptions) -> int:
    """Most rows of one commit, fewer of large images, at least 16. It depends on what names the dataset alone.

    Where nothing bounds what an image becomes but `fetch.max_bytes` and `fetch.max_pixels`, which do not name it, they
    count as `ASSUMED_BYTES` each.
    """
    height, width = options.size
    is_open = options.store == "original" or options.resize == "no"
    each = ASSUMED_BYTES if is_open else height * width * options.channels
    return max(16, min(MOST_ROWS, MAX_CHUNK_BYTES // each))


def spool(
    rows: Iterable[Item | BadRow], folder: Folder, chunk_items: int, committed: Collection[str]
) -> dict[str, int]:
    """Cut rows into chunks and write those that are not committed: name -> rows of all, in order.

    Args:
        chunk_items: most rows of a chunk. The first have FIRST_ROWS, later ones a part of what lies before them, so
            that their bounds stay when the manifest grows.
    """
    chunks: dict[str, int] = {}
    stream, total = iter(rows), 0
    while chunk := list(islice(stream, min(chunk_items, max(FIRST_ROWS, total // _GROWTH)))):
        name = f"{len(chunks):06d}-{_key(chunk)}"
        chunks[name] = len(chunk)
        total += len(chunk)
        if name not in committed:
            write_spool(folder, name, [Spooled(row=row) for row in chunk])
    return chunks


def write_spool(folder: Folder, name: str, rows: Sequence[Spooled]) -> None:
    """Write, or replace, a chunk that is to be committed."""
    table = _table(rows, _SPOOL, lambda spooled, name: getattr(spooled, name, getattr(spooled.row, name, None)))
    folder.put_whole(f"{CHUNKS}/{name}.parquet", _encode(table))


def read_spool(folder: Folder, name: str) -> list[Spooled]:
    """The rows of a chunk that is to be committed."""
    return [_spooled(row) for row in _read(folder, f"{CHUNKS}/{name}.parquet").to_pylist()]


def names_files(folder: Folder, name: str) -> bool:
    """Whether a chunk that is to be committed has items that are files of a machine."""
    rows = _read(folder, f"{CHUNKS}/{name}.parquet", ["url", "status"])
    is_file = pc.and_(pc.starts_with(rows["url"], "file:"), pc.is_null(rows["status"]))
    return bool(pc.any(is_file).as_py())


def count_try(folder: Folder, name: str) -> int:
    """Note that work on a chunk begins; how often it has, since the chunk was last spooled or committed."""
    path = f"{CHUNKS}/{name}.tries"
    try:
        tries = int(folder.read(path)) + 1
    except FileNotFoundError:
        tries = 1
    folder.put_whole(path, str(tries).encode())
    return tries


def forget_tries(folder: Folder, name: str) -> None:
    """Begin to count anew."""
    folder.delete(f"{CHUNKS}/{name}.tries")


def names_in(folder: Folder, kind: str) -> list[str]:
    """Sorted names in CHUNKS, IMAGES or LEDGER, without their ending."""
    return [name.removesuffix(".parquet") for name in folder.list(kind) if name.endswith(".parquet")]


def commit(folder: Folder, name: str, outcomes: Sequence[Outcome], images: Sequence[dict[str, Any]]) -> None:
    """Write the images (rows of `image_schema`, in the order of the ok outcomes), then the ledger part."""
    table = _table(outcomes, ledger_schema(), getattr)
    write_part(folder, name, table, _table(images, image_schema(), dict.__getitem__))


def write_part(folder: Folder, name: str, table: pa.Table, images: pa.Table) -> str:
    """Commit a ledger table and its images under a new shard name, which is returned; a former shard is left."""
    shard = f"{name}-{uuid.uuid4().hex[:8]}" if images.num_rows else ""
    if shard:
        folder.put_whole(f"{IMAGES}/{shard}.parquet", _encode(images))
    replace_part(folder, name, Part(table, shard))
    return shard


def replace_part(folder: Folder, name: str, part: Part) -> None:
    """Write the commit record."""
    table = part.table.replace_schema_metadata({_SHARD: part.shard.encode()})
    folder.put_whole(f"{LEDGER}/{name}.parquet", _encode(table))


def read_part(folder: Folder, name: str, columns: Sequence[str] | None = None) -> Part:
    """A committed ledger part, or some of its columns."""
    table = _read(folder, f"{LEDGER}/{name}.parquet", columns)
    metadata = table.schema.metadata or {}
    return Part(table.replace_schema_metadata(), metadata.get(_SHARD, b"").decode())


def read_shard(folder: Folder, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The images of a shard, or some of their columns."""
    return _read(folder, f"{IMAGES}/{shard}.parquet", columns)


def _key(chunk: Sequence[Item | BadRow]) -> str:
    """Hex digits from the rows. A URL counts as the ledger shows it: one that is signed anew is the same item."""
    digest = hashlib.sha256()
    for row in chunk:
        label, split = (row.label, row.split) if isinstance(row, Item) else (row.status, row.reason)
        own = [row.own] if isinstance(row, Item) and row.own else []
        own += [f"hashes {row.hashes}"] if isinstance(row, Item) and row.hashes else []
        own += [f"blur {row.blur}"] if isinstance(row, Item) and row.blur else []
        digest.update(json.dumps([row.id, portless(redact(row.url)), label, split, *own]).encode() + b"\n")
    return digest.hexdigest()[:12]


def _spooled(row: dict[str, Any]) -> Spooled:
    kind: type[Any] = Item if row["status"] is None else BadRow
    fetched = kind(**{field.name: row.get(field.name) for field in fields(kind)})
    return Spooled(row=fetched, part=row["part"], place=row["place"], attempts=row["attempts"])


def _table(rows: Sequence[Any], schema: pa.Schema, get: Callable[[Any, str], Any]) -> pa.Table:
    """Rows to columns; several times faster than by way of dicts."""
    return pa.table([[get(row, name) for row in rows] for name in schema.names], schema=schema)


def _read(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    if columns is None:
        return pq.read_table(io.BytesIO(folder.read(name)))
    filesystem, root = folder.filesystem()
    with filesystem.open_input_file(f"{root}/{name}") as stream:  # only these columns cross the network
        return pq.ParquetFile(stream).read(list(columns))


def _encode(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    # Images are compressed already, and a dictionary of images is a second copy of them.
    codec = {name: "NONE" if name == "image" else "ZSTD" for name in table.column_names}
    small = [name for name in table.column_names if name != "image"]
    # Readers hold a row group whole. One holds all images of a chunk, unless those are larger than was foreseen.
    groups = -(-table["image"].nbytes // MAX_CHUNK_BYTES) if "image" in table.column_names else 1
    pq.write_table(
        table,
        stream,
        row_group_size=-(-len(table) // max(groups, 1)) or None,
        compression=codec,
        use_dictionary=["label", "split", "status"],
        write_statistics=small,
    )
    return stream.getvalue()
