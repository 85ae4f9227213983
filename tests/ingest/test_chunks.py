from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest

from startup_ray.ingest.chunks import (
    IMAGES,
    LEDGER,
    MAX_CHUNK_BYTES,
    Spooled,
    commit,
    items_per_chunk,
    names_in,
    read_part,
    read_shard,
    spool,
    write_spool,
)
from startup_ray.ingest.chunks import read_spool as read
from startup_ray.items import BadRow, Item
from startup_ray.job import ImageOptions
from startup_ray.ledger import Outcome, ledger_schema
from startup_ray.storage import Folder
from tests.fakes import read_ledger

ROWS: list[Item | BadRow] = [
    Item(position=0, id="a", url="http://127.0.0.1:4000/a?x=1", label="1"),
    BadRow(position=1, id="", url="", status="bad_item", reason="not an object"),
    Item(position=2, id="../c", url="http://e.com/c", split="test", own='{"camera": "old"}', hashes="md5:0"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def names(rows: list[Item | BadRow], folder: Folder, size: int = 2) -> list[str]:
    return list(spool(rows, folder, size, ()))


def test_rows_come_back_in_order(folder: Folder) -> None:
    chunks = spool(iter(ROWS), folder, 2, ())
    assert list(chunks.values()) == [2, 1]
    assert [spooled.row for name in chunks for spooled in read(folder, name)] == ROWS


def test_a_committed_chunk_is_not_written_again(folder: Folder) -> None:
    first, second = names(ROWS, folder)
    folder.delete("chunks")
    assert list(spool(ROWS, folder, 2, {first})) == [first, second]
    assert names_in(folder, "chunks") == [second]


def test_the_key_is_made_from_what_counts(folder: Folder) -> None:
    """Another port or signature is the same item; another label, split, url or place is not."""
    first, second = names(ROWS, folder)
    item = ROWS[0]
    assert isinstance(item, Item)
    moved = replace(item, url="http://127.0.0.1:4001/a?x=1")
    assert names([moved, *ROWS[1:]], folder) == [first, second]
    named = [replace(item, url=f"http://user:40@[::1]:{port}/a:40") for port in (40, 41)]
    assert names([named[0], *ROWS[1:]], folder) == names([named[1], *ROWS[1:]], folder)
    signed = [replace(item, url=f"http://127.0.0.1:4000/a?x=1&sig={sig}") for sig in ("a", "b")]
    assert names([signed[0], *ROWS[1:]], folder) == names([signed[1], *ROWS[1:]], folder)
    others = [{"id": "b"}, {"label": "2"}, {"split": "val"}, {"url": "http://127.0.0.2:4000/a?x=1"}, {"label": None}]
    others += [{"own": "{}"}, {"hashes": f"md5:{'0' * 32}"}, {"blur": "[[0.0, 0.0, 1.0, 1.0]]"}]
    for change in others:
        changed = names([replace(item, **change), *ROWS[1:]], folder)  # type: ignore[arg-type]
        assert changed[0] != first
        assert changed[1] == second
    assert set(names(ROWS, folder, size=3)) & {first, second} == set()


def test_a_commit_names_its_shard(folder: Folder) -> None:
    outcomes = [Outcome(id="a", url="u", status="ok", sha256="00"), Outcome(id="b", url="u", status="dns")]
    size = {"width": 1, "height": 1, "own": None}
    commit(folder, "0", outcomes, [{"id": "a", "sha256": "00", "label": None, "split": "val", "image": b"x", **size}])
    commit(folder, "1", outcomes[1:], [])
    part = read_part(folder, "0")
    assert [part.shard] == names_in(folder, IMAGES)
    assert part.table.schema == ledger_schema()
    assert read_part(folder, "0", ["status"]).shard == part.shard
    assert read_shard(folder, part.shard, ["id", "image"]).to_pylist() == [{"id": "a", "image": b"x"}]
    assert read_part(folder, "1").shard == ""
    assert [row["id"] for row in read_ledger(folder)] == ["a", "b", "b"]


def test_done_twice_counts_once(folder: Folder) -> None:
    image = {
        "id": "a",
        "sha256": "0",
        "label": None,
        "split": "val",
        "own": None,
        "image": b"x",
        "width": 1,
        "height": 1,
    }
    for _ in range(2):
        commit(folder, "0", [Outcome(id="a", url="u", status="ok", sha256="0")], [image])
    assert len(names_in(folder, IMAGES)) == 2
    assert len(names_in(folder, LEDGER)) == 1
    assert read_part(folder, "0").shard in names_in(folder, IMAGES)


@pytest.mark.parametrize(
    ("size", "channels", "items"),
    [((28, 28), 1, 8192), ((64, 64), 3, 5461), ((512, 512), 3, 85), ((4096, 4096), 3, 16)],
)
def test_chunks_of_large_images_are_shorter(size: tuple[int, int], channels: Literal[1, 3], items: int) -> None:
    assert items_per_chunk(ImageOptions(size=size, channels=channels)) == items
    assert items == 16 or items * size[0] * size[1] * channels <= MAX_CHUNK_BYTES


@pytest.mark.parametrize("image", [{"store": "original"}, {"resize": "no"}])
def test_what_bounds_no_image_bounds_a_chunk_by_a_guess(image: dict[str, Any]) -> None:
    assert items_per_chunk(ImageOptions.model_validate(image | {"size": (2_000, 2_000)})) == 64
    assert items_per_chunk(ImageOptions(size=(64, 64), resize="fit")) == items_per_chunk(ImageOptions(size=(64, 64)))


@pytest.mark.ray
def test_readers_never_hold_more_than_a_row_group(folder: Folder) -> None:
    body = bytes(2**20)
    rows = [
        {"id": f"{i}", "sha256": "0", "label": None, "split": "train", "width": 1, "height": 1, "own": None}
        for i in range(100)
    ]
    commit(folder, "000000-a", [], [row | {"image": body} for row in rows])
    (shard,) = names_in(folder, "images")
    found = pq.ParquetFile(folder.path(f"images/{shard}.parquet"))
    assert [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)] == [50, 50]
    assert found.read(["id"])["id"].to_pylist() == [row["id"] for row in rows]


def test_later_chunks_are_larger_and_bounds_stay(folder: Folder) -> None:
    rows = [Item(position=i, id=f"{i}", url="http://e.com/") for i in range(12_000)]
    short = spool(iter(rows[:9_000]), folder, 600, ())
    chunks = spool(iter(rows), folder, 600, ())
    assert list(chunks.values())[:16] == [512] * 16
    assert max(chunks.values()) == 600
    assert sum(chunks.values()) == 12_000
    assert list(chunks)[: len(short) - 1] == list(short)[:-1]


def test_a_spooled_row_keeps_where_its_outcome_stands(folder: Folder) -> None:
    blurred = Item(position=3, id="d", url="http://e.com/d", blur="[[0.0, 0.0, 1.0, 1.0]]")
    spooled = [Spooled(row=ROWS[0], part="000001-ab", place=7), Spooled(row=blurred, attempts=4)]
    write_spool(folder, "x", spooled)
    assert read(folder, "x") == spooled
