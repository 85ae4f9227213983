"""Predictions as JSONL, CSV or Parquet.

data = encode(rows, ".csv")         # columns id, status, predicted, score, top, reason
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from startup_ray.errors import UsageError
from startup_ray.predict import Prediction
from startup_ray.storage import Folder, open_folder

FORMS = (".jsonl", ".csv", ".parquet")
COLUMNS = ("id", "status", "predicted", "score", "top", "reason")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in COLUMNS[:3]),
        ("score", pa.float32()),
        ("top", pa.list_(pa.struct([("class", pa.string()), ("probability", pa.float32())]))),
        ("reason", pa.string()),
    ]
)


def open_target(path: str) -> Folder:
    """Where predictions are to be written; `parent.put_whole(name, ...)` of it.

    Raises:
        UsageError: it names none of the forms.
    """
    target = open_folder(path)
    if path.endswith("/") or PurePosixPath(target.name).suffix.lower() not in FORMS:
        raise UsageError("predictions are written as .jsonl, .csv or .parquet", where=path, hint="name such a file")
    return target


def write(rows: Sequence[Prediction], target: Folder) -> str:
    """Write predictions whole; returns the path or URI."""
    target.parent.put_whole(target.name, encode(rows, PurePosixPath(target.name).suffix.lower()))
    return target.uri


def encode(rows: Sequence[Prediction], form: str) -> bytes:
    """Predictions in one of FORMS."""
    if form == ".parquet":
        return _parquet(rows)
    return _csv(rows) if form == ".csv" else "".join(f"{line}\n" for line in lines(rows)).encode()


def lines(rows: Iterable[Prediction]) -> Iterable[str]:
    """A JSON object each."""
    return (json.dumps(plain(row), ensure_ascii=False) for row in rows)


def plain(row: Prediction) -> dict[str, Any]:
    """One prediction as `--json` prints it: a reason stands where there is no label."""
    if row.status == "ok":
        fields = {"predicted": row.predicted, "score": row.score, "top": [list(pair) for pair in row.top]}
    else:
        fields = {"predicted": None, "score": None, "top": [], "reason": row.reason}
    return {"id": row.id, "status": row.status} | fields


def _csv(rows: Sequence[Prediction]) -> bytes:
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\r\n")  # of these signs, an id that holds one is quoted
    table.writerow(COLUMNS)
    for row in rows:
        top = json.dumps(row.top, ensure_ascii=False)
        table.writerow([row.id, row.status, row.predicted, row.score, top, row.reason])
    return stream.getvalue().encode()


def _parquet(rows: Sequence[Prediction]) -> bytes:
    columns = [[getattr(row, name) for row in rows] for name in COLUMNS]
    columns[4] = [[{"class": name, "probability": share} for name, share in row.top] for row in rows]
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), stream)
    return stream.getvalue()
