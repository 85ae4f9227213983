from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.ingest.embedded import CURSORS, Embedded

ROWS = 60
BODIES = [bytes([i]) * (100 + i) for i in range(ROWS)]


def write(path: Path, column: pa.Array, rows_per_group: int = ROWS) -> None:
    pq.write_table(pa.table({"image": column, "label": [0] * len(column)}), path, row_group_size=rows_per_group)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "x.parquet", pa.array(BODIES, pa.binary()))
    return tmp_path / "x.parquet"


class Opening:
    """Opens a file, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path, self.count, self.open = path, 0, list[BinaryIO]()

    def __call__(self) -> BinaryIO:
        self.count += 1
        self.open.append(self.path.open("rb"))
        return self.open[-1]


def reader(path: Path, batch_bytes: int = 2**24) -> tuple[Embedded, Opening, Callable[..., bytes]]:
    images, opening = Embedded("image", batch_bytes=batch_bytes), Opening(path)
    return images, opening, lambda row, group=0: images.read(opening, path.name, group, row)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(BODIES, pa.binary()),
        pa.array(BODIES, pa.large_binary()),
        pa.array([{"bytes": body, "path": f"{i}.png"} for i, body in enumerate(BODIES)]),
        pa.array([{"path": f"{i}.png", "bytes": body} for i, body in enumerate(BODIES)]),
    ],
)
@pytest.mark.parametrize("batch_bytes", [1, 1000, 2**24])
def test_every_row_in_any_order(tmp_path: Path, column: pa.Array, batch_bytes: int) -> None:
    write(tmp_path / "x.parquet", column, rows_per_group=25)
    images, opening, read = reader(tmp_path / "x.parquet", batch_bytes)
    order = random.Random(0).sample(range(ROWS), ROWS)
    assert [read(row % 25, row // 25) for row in order] == [BODIES[row] for row in order]
    images.close()
    assert all(stream.closed for stream in opening.open)


def test_a_file_is_opened_once_for_rows_in_order(path: Path) -> None:
    images, opening, read = reader(path, batch_bytes=1000)
    assert [read(row) for row in range(ROWS)] == BODIES
    assert opening.count == 1
    images.close()


def test_places_far_apart_in_one_group_do_not_disturb_each_other(path: Path) -> None:
    """As when three chunks of one row group are in work at once."""
    images, opening, read = reader(path, batch_bytes=1000)
    for row in range(ROWS // 3):
        for start in (0, ROWS // 3, 2 * ROWS // 3):
            assert read(start + row) == BODIES[start + row]
    assert opening.count <= 4
    images.close()


def test_few_files_stay_open(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", pa.array(BODIES), rows_per_group=1)
    images, opening, read = reader(tmp_path / "x.parquet")
    for group in range(ROWS):
        read(0, group)
    assert sum(not stream.closed for stream in opening.open) == CURSORS
    images.close()


@pytest.mark.parametrize(
    ("column", "group", "row", "says"),
    [
        (pa.array(BODIES), 0, ROWS, "no such row"),
        (pa.array(BODIES), 1, 0, "no such row group"),
        (pa.array([None]), 0, 0, "no column 'image' of bytes"),
        (pa.array(["text"]), 0, 0, "no column 'image' of bytes"),
        (pa.array([{"path": "a.png"}]), 0, 0, "no column 'image' of bytes"),
        (pa.array([None], pa.binary()), 0, 0, "no bytes in this row"),
        (pa.array([None, {"bytes": b"1"}]), 0, 0, "no bytes in this row"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, column: pa.Array, group: int, row: int, says: str) -> None:
    write(tmp_path / "x.parquet", column)
    _, opening, read = reader(tmp_path / "x.parquet")
    with pytest.raises(LookupError, match=says):
        read(row, group)
    assert all(stream.closed for stream in opening.open)


@pytest.mark.parametrize("damage", [lambda body: b"", lambda body: b"PAR1", lambda body: body[:400] + body[600:]])
def test_a_damaged_file_is_told_and_closed(path: Path, damage: Callable[[bytes], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes()))
    _, opening, read = reader(path)
    with pytest.raises((OSError, pa.ArrowException)):
        read(0)
    assert all(stream.closed for stream in opening.open)


def test_memory_is_bounded_by_batches(tmp_path: Path) -> None:
    """Not by the row group, which here has 64 MB."""
    pages: Any = {"use_dictionary": False, "data_page_size": 2**20, "write_batch_size": 2}
    pq.write_table(pa.table({"image": [random.Random(0).randbytes(2**19)] * 128}), tmp_path / "x.parquet", **pages)
    before = pa.total_allocated_bytes()
    images, _, read = reader(tmp_path / "x.parquet", batch_bytes=2**21)
    most = 0
    for row in range(128):
        assert len(read(row)) == 2**19
        most = max(most, pa.total_allocated_bytes() - before)
    images.close()
    assert most < 2**25
