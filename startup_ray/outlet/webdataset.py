"""WebDataset: tar files of samples, each three members with one key.

    train-000000.tar:  000000000.png  000000000.cls  000000000.json

A key is the image's place in its split: an id may hold dots and slashes, at which readers cut names, so it stands in
the `.json`. Of images without a label there is no `.cls`. Nothing in a file tells when or by whom it was made, so the
same dataset gives the same bytes. https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from startup_ray.dataset import NO_LABEL, Dataset
from startup_ray.outlet.parts import Add, Work, write_parts
from startup_ray.outlet.rows import Row

PART = "{split}-{number:06d}.tar"
ROW_BYTES = 3_000
"""Three headers, a class, an object, and what fills them up to blocks of 512."""


def write(work: Work) -> None:
    """Write all parts."""
    write_parts(work, PART, open_part, row_bytes=ROW_BYTES)


@contextmanager
def open_part(path: Path, _: Dataset) -> Iterator[Add]:
    """A tar file that rows are added to."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        yield lambda row: _add(tar, row)


def sample(row: Row) -> dict[str, bytes]:
    """Members of a sample by their ending."""
    members = {row.ending: row.image}
    if row.index != NO_LABEL:
        members["cls"] = str(row.index).encode()
    own = json.loads(row.own) if row.own else {}
    names = ("id", "label", "split", "sha256", "width", "height")
    about = {name: getattr(row, name) for name in names} | {"own": own}
    return members | {"json": json.dumps(about, ensure_ascii=False).encode()}


def _add(tar: tarfile.TarFile, row: Row) -> None:
    for ending, data in sample(row).items():
        member = tarfile.TarInfo(f"{row.number:09d}.{ending}")  # by itself of time 0 and user 0
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    # Nobody asks for them, and of small images they would take more memory than the file.
    tar.members.clear()  # type: ignore[attr-defined]
