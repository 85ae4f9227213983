"""Chunks of a manifest, and their commits: what an ingest leaves on storage while it runs.

    chunks/<index>-<key>.parquet      rows still to be fetched; gone when the dataset is sealed
    chunks/<index>-<key>.tries        how often a worker has begun with them
    images/<index>-<key>-<n>.parquet  the images of a chunk, in the order of its ok rows
    ledger/<index>-<key>.parquet      one row per row of the chunk, in order: the commit record

A ledger part names its shard in its Parquet metadata; a shard that none names does not exist. So a chunk may be
done twice, or be killed at any point, and what counts is always one whole chunk. The key is made from the rows,
so that a changed manifest keeps the chunks that it did not change.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from startup_ray.dataset import image_schema
from startup_ray.items import BadRow, Item
from startup_ray.job import ImageOptions
from startup_ray.ledger import Outcome, ledger_schema
from startup_ray.storage import Folder

CHUNKS, IMAGES, LEDGER = "chunks", "images", "ledger"
MAX_CHUNK_BYTES = 2**28
"""Of the pixels of one chunk; an actor holds a few chunks, each with a copy on its way to storage."""
_SHARD = b"shard"
_TEXTS = ("id", "url", "label", "split", "status", "reason")
_SPOOL = pa.schema([("position", pa.int64()), *((name, pa.string()) for name in _TEXTS)])


@dataclass(frozen=True)
class Part:
    """A committed ledger part: its table (`ledger_schema`) and the name of its shard, empty without images."""

    table: pa.Table
    shard: str


def items_per_chunk(options: ImageOptions) -> int:
    """Rows of one commit: 512, fewer of large images, at least 16. It depends on what names the dataset alone."""
    height, width = options.size
    return max(16, min(512, MAX_CHUNK_BYTES // (height * width * options.channels)))


def spool(
    rows: Iterable[Item | BadRow], folder: Folder, chunk_items: int, committed: Collection[str]
) -> dict[str, int]:
    """Cut rows into chunks of `chunk_items` and write those that are not committed: name -> rows of all, in order."""
    chunks: dict[str, int] = {}
    stream = iter(rows)
    while chunk := list(islice(stream, chunk_items)):
        name = f"{len(chunks):06d}-{_key(chunk)}"
        chunks[name] = len(chunk)
        if name not in committed:
            table = pa.Table.from_pylist([asdict(row) for row in chunk], schema=_SPOOL)
            folder.put_whole(f"{CHUNKS}/{name}.parquet", _encode(table))
    return chunks


def read_spool(folder: Folder, name: str) -> list[Item | BadRow]:
    """The rows of a chunk that is still to be fetched."""
    found = _read(folder, f"{CHUNKS}/{name}.parquet").to_pylist()
    return [_pick(Item if row["status"] is None else BadRow, row) for row in found]


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
    return [name.removesuffix(".parquet") for name in folder.list(kind)]


def commit(folder: Folder, name: str, outcomes: Sequence[Outcome], images: Sequence[dict[str, Any]]) -> None:
    """Write the images (rows of `image_schema`, in the order of the ok outcomes), then the ledger part."""
    table = pa.Table.from_pylist([asdict(outcome) for outcome in outcomes], schema=ledger_schema())
    write_part(folder, name, table, pa.Table.from_pylist(list(images), schema=image_schema()))


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


def read_ledger(folder: Folder) -> Iterator[pa.Table]:
    """The ledger in manifest order, a table for each part (`ledger_schema`)."""
    for name in names_in(folder, LEDGER):
        yield read_part(folder, name).table


def _key(chunk: Sequence[Item | BadRow]) -> str:
    """Hex digits from the rows. The port of a URL does not count: a sample's server has another each time."""
    digest = hashlib.sha256()
    for row in chunk:
        label, split = (row.label, row.split) if isinstance(row, Item) else (row.status, row.reason)
        digest.update(json.dumps([row.id, _portless(row.url), label, split]).encode() + b"\n")
    return digest.hexdigest()[:12]


def _portless(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    return url if port is None else parts._replace(netloc=parts.netloc.rpartition(":")[0]).geturl()


def _pick(kind: type[Any], row: dict[str, Any]) -> Any:
    return kind(**{field.name: row[field.name] for field in fields(kind)})


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
    pq.write_table(table, stream, compression=codec, use_dictionary=["label", "split", "status"])
    return stream.getvalue()
