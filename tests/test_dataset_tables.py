from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from startup_ray.dataset import Dataset
from startup_ray.dataset_tables import image_batches, ledger_tables
from startup_ray.errors import StorageError
from startup_ray.storage import Folder
from tests.audit.made import defective
from tests.fakes import make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(Folder(str(tmp_path)), np.zeros((7, 4, 4), np.uint8), ["a"] * 7, ["train"] * 7, shards=2)


def test_batches_come_shard_by_shard_and_hold_no_more_rows_than_asked_for(dataset: Dataset) -> None:
    found = [(shard, batch["id"].to_pylist()) for shard, batch in image_batches(dataset, ["id"], rows=3)]
    assert found == [
        ("000000.parquet", ["00000", "00002", "00004"]),
        ("000000.parquet", ["00006"]),
        ("000001.parquet", ["00001", "00003", "00005"]),
    ]


def test_a_shard_that_is_damaged_within_is_told_by_name(dataset: Dataset) -> None:
    shard = Path(dataset.folder.path(f"images/{dataset.shards[1]}"))
    start = pq.ParquetFile(shard).metadata.row_group(0).column(0).dictionary_page_offset
    body = shard.read_bytes()
    shard.write_bytes(body[:start] + b"\xff" * 40 + body[start + 40 :])
    with pytest.raises(StorageError, match="cannot read the dataset") as caught:
        list(image_batches(dataset, ["id"], rows=3))
    assert caught.value.where == str(shard)


def test_rows_of_the_ledger_that_are_wanted(tmp_path: Path) -> None:
    dataset = defective(Folder(str(tmp_path)))
    (table,) = ledger_tables(dataset, ["id"], pc.field("status") == "http_404")
    assert table.to_pylist() == [{"id": "gone-1"}, {"id": "gone-2"}]
    assert sum(len(table) for table in ledger_tables(dataset, ["id"])) == 77
