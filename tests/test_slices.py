from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from startup_ray import slices
from startup_ray.dataset import Dataset, image_schema
from startup_ray.judged import Rows, read_rows
from startup_ray.ledger import ledger_schema
from startup_ray.slices import REST, bucket, read_slices
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns

ROWS = 90
HOSTS = ("a.example", "b.example", "c.example")
WIDTHS = (40, 63, 64, 200)


def scored() -> Rows:
    """Right for two hosts, wrong in two of three rows of the third."""
    labels = np.arange(ROWS) % 3
    hosts = np.arange(ROWS) // 30
    predicted = np.where((hosts == 2) & (np.arange(ROWS) % 3 > 0), (labels + 1) % 3, labels)
    ids = pa.array([f"{i:05d}" for i in range(ROWS)])
    return Rows(ids=ids, labels=labels, predicted=predicted, losses=np.where(labels == predicted, 0.25, 2.0))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Its last ten rows are no part of what was scored; one URL is none, and one row is not in the ledger."""
    images, labels = patterns(ROWS + 10)
    found = make_dataset(Folder(str(tmp_path)), images, labels, ["test"] * (ROWS + 10), shards=3)
    urls = [f"https://{HOSTS[min(i // 30, 2)]}/{i}.png" for i in range(ROWS + 10)]
    urls[0] = "http://[bad"
    rows = [{"id": f"{i:05d}", "url": url, "status": "ok"} for i, url in enumerate(urls) if i != 1]
    for number, part in enumerate((rows[:50], rows[50:])):
        put(found.folder, f"ledger/{number:06d}.parquet", pa.Table.from_pylist(part, schema=ledger_schema()))
    for name in found.shards:
        table = pq.read_table(found.folder.path(f"images/{name}"))
        widths = [WIDTHS[int(i) % 4] for i in table["id"].to_pylist()]
        place = image_schema().get_field_index("width")
        put(found.folder, f"images/{name}", table.set_column(place, "width", pa.array(widths, pa.int32())))
    return found


def put(folder: Folder, name: str, table: pa.Table) -> None:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    folder.put_whole(name, stream.getvalue())


def test_the_slice_that_is_surely_bad_comes_first_with_the_metrics_of_its_rows(dataset: Dataset) -> None:
    rows = scored()
    found = read_slices(rows, dataset, ["host"], num_classes=3, average="macro")["host"]
    assert [part["value"] for part in found] == ["c.example", REST, "a.example", "b.example"]
    assert sum(part["rows"] for part in found) == ROWS
    worst = found[0]
    here = slice(60, 90)
    values = sk.precision_recall_fscore_support(
        rows.labels[here], rows.predicted[here], average="macro", zero_division=0
    )
    assert (worst["precision"], worst["recall"], worst["f1"]) == pytest.approx(values[:3], abs=1e-12)
    assert worst["accuracy"] == pytest.approx(1 / 3)
    assert worst["low"] < 1 / 3 < worst["high"] < found[1]["high"]
    assert worst["log_loss"] == pytest.approx((10 * 0.25 + 20 * 2.0) / 30)


def test_sides_are_parted_by_powers_of_two(dataset: Dataset) -> None:
    found = read_slices(scored(), dataset, ["width", "height"], num_classes=3, average="micro")
    assert {part["value"]: part["rows"] for part in found["width"]} == {
        "32 to 63": 46,
        "64 to 127": 22,
        "128 to 255": 22,
    }
    assert [part["value"] for part in found["height"]] == ["8 to 15"]
    assert [bucket(pixels) for pixels in (1, 2, 3, 1_024, 0, None)] == [
        "1",
        "2 to 3",
        "2 to 3",
        "1,024 to 2,047",
        REST,
        REST,
    ]


def put_own(dataset: Dataset, value_of: Callable[[int], dict[str, Any] | None]) -> None:
    """Own columns of the manifest, by the number that is a row's id."""
    for name in dataset.shards:
        table = pq.read_table(dataset.folder.path(f"images/{name}"))
        owns = [json.dumps(value) if (value := value_of(int(i))) else None for i in table["id"].to_pylist()]
        place = image_schema().get_field_index("own")
        put(dataset.folder, f"images/{name}", table.set_column(place, "own", pa.array(owns, pa.string())))


def test_a_column_of_the_users_own(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    put_own(dataset, lambda i: {"camera": "old" if i >= 60 else 7} if i % 2 else None)
    found = read_slices(scored(), dataset, ["camera", "lens"], num_classes=3, average="macro")
    assert {part["value"]: part["rows"] for part in found["camera"]} == {REST: 45, "7": 30, "old": 15}
    assert found["camera"][0]["value"] == "old"
    assert "no row has a column 'lens'" in caplog.text
    for name in dataset.shards:  # as a former version wrote them
        table = pq.read_table(dataset.folder.path(f"images/{name}"))
        put(dataset.folder, f"images/{name}", table.drop_columns(["own"]))
    found = read_slices(scored(), dataset, ["camera"], num_classes=3, average="macro")
    assert [part["value"] for part in found["camera"]] == [REST]


def test_many_different_numbers_are_parted_into_ranges(dataset: Dataset) -> None:
    put_own(dataset, lambda i: {"year": 1900 + i, "month": i % 12, "iso": 100 if i < 60 else i} if i != 3 else None)
    found = read_slices(scored(), dataset, ["year", "month", "iso"], num_classes=3, average="macro")
    years = {part["value"]: part["rows"] for part in found["year"]}
    assert years.pop(REST) == 1
    assert (min(years), max(years)) == ("1900 to 1911", "1978 to 1989")
    assert sorted(years.values()) == [11] * 7 + [12]
    assert len(found["month"]) == 13  # few enough
    assert {part["value"] for part in found["iso"]} == {REST, "60 to 70", "71 to 81", "82 to 89", "100"}


def test_rare_values_stand_together(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MAX_VALUES", 2)
    found = read_slices(scored(), dataset, ["host"], num_classes=3, average="macro")["host"]
    assert {part["value"]: part["rows"] for part in found} == {REST: 30, "b.example": 30, "c.example": 30}


def test_only_rows_with_a_label_and_a_prediction_count(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "label": ["cat", None, "unheard", "dog"],
            "predicted": ["dog", "cat", "cat", None],
            "loss": pa.array([1.0, None, None, None], pa.float64()),
        }
    )
    put(folder, "000000000000-000000000004.parquet", table)
    rows = read_rows(folder, ("cat", "dog"))
    assert (rows.ids.to_pylist(), rows.labels.tolist(), rows.predicted.tolist()) == (["a"], [0], [1])
    nothing = read_rows(Folder(str(tmp_path / "nothing")), ("cat", "dog"))
    assert len(nothing.labels) == 0
    dataset = make_dataset(Folder(str(tmp_path / "data")), *patterns(2), ["test"] * 2)
    assert read_slices(nothing, dataset, ["width"], num_classes=2, average="macro") == {"width": []}
