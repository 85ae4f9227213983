"""The forms of predictions all hold the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from startup_ray.errors import UsageError
from startup_ray.predict import Prediction
from startup_ray.predict.table import COLUMNS, encode, open_target, write

SCORE, REST = 0.8999999761581421, 0.10000000149011612  # float32, as the model gives them
ROWS = [
    Prediction(id='a,"\n', status="ok", predicted="ja", score=SCORE, top=(("ja", SCORE), ("nö", REST))),
    Prediction(id="b", status="http_404", reason="Not Found"),
]


def test_jsonl() -> None:
    first, second = [json.loads(line) for line in encode(ROWS, ".jsonl").decode().splitlines()]
    top = [["ja", SCORE], ["nö", REST]]
    assert first == {"id": 'a,"\n', "status": "ok", "predicted": "ja", "score": SCORE, "top": top}
    assert second == {
        "id": "b", "status": "http_404", "predicted": None, "score": None, "top": [], "reason": "Not Found",
    }  # fmt: skip


def test_csv() -> None:
    rows = [*ROWS, Prediction(id="a\rb", status="timeout")]
    head, first, second, third = csv.reader(io.StringIO(encode(rows, ".csv").decode(), newline=""))
    assert tuple(head) == COLUMNS
    assert first == ['a,"\n', "ok", "ja", str(SCORE), json.dumps(ROWS[0].top, ensure_ascii=False), ""]
    assert second == ["b", "http_404", "", "", "[]", "Not Found"]
    assert third == ["a\rb", "timeout", "", "", "[]", ""]


def test_parquet() -> None:
    first, second = pq.read_table(io.BytesIO(encode(ROWS, ".parquet"))).to_pylist()
    assert first["score"] == SCORE
    assert first["top"] == [{"class": "ja", "probability": SCORE}, {"class": "nö", "probability": REST}]
    assert (second["predicted"], second["top"], second["reason"]) == (None, [], "Not Found")


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".parquet"])
def test_nothing_is_a_file_too(tmp_path: Path, form: str) -> None:
    path = write([], open_target(f"{tmp_path}/deep/none{form}"))
    assert Path(path).exists()


@pytest.mark.parametrize("path", ["x.txt", "x", "folder.csv/"])
def test_another_form_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"\.jsonl, \.csv or \.parquet"):
        open_target(path)
