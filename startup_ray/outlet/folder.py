"""A folder of image files, a folder for each class: the ImageFolder layout.

    images/train/cat/17-4523540f1504cd17.png      labels.csv

Names come from ids and labels, and are safe on every file system (`names.py`); `labels.csv` says which is which, with
everything else that the dataset knows. Images without a label lie in the folder of their split. The images have a
folder of their own, so that whoever reads it finds nothing else.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from startup_ray.dataset import NO_LABEL
from startup_ray.outlet.names import file_name, folder_names
from startup_ray.outlet.parts import Work, scratch
from startup_ray.outlet.rows import BATCH_ROWS, Row

COLUMNS = ("file", "id", "label", "split", "sha256", "width", "height", "own", "file_sha256")
WRITERS = 16
"""Files written at once: disks and object stores answer slowly, but many at a time."""


def write(work: Work) -> None:
    """Write all images, then their list."""
    folders = folder_names(work.dataset.classes)
    with scratch() as place, ThreadPoolExecutor(WRITERS) as pool:
        path = place / "labels.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\r\n")  # of these signs, an id that holds one is quoted
            table.writerow(COLUMNS)
            for rows in _batches(work.rows()):
                files = [_path(row, folders) for row in rows]
                work.target.put_many([(file, row.image) for file, row in zip(files, rows, strict=True)], pool)
                table.writerows(_line(file, row) for file, row in zip(files, rows, strict=True))
        work.target.put("labels.csv", path.read_bytes())


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch


def _path(row: Row, folders: Sequence[str]) -> str:
    folder = f"{row.split}/{folders[row.index]}" if row.index != NO_LABEL else row.split
    return f"images/{folder}/{file_name(row.id, row.ending)}"


def _line(file: str, row: Row) -> list[Any]:
    values = {"file": file, "file_sha256": hashlib.sha256(row.image).hexdigest()}
    return [values[name] if name in values else getattr(row, name) for name in COLUMNS]
