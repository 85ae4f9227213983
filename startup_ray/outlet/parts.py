"""Splits cut into files of about the same size.

    cut = Cut(limit=256_000_000)
    cut.place("train", 30_000)            # 0: the part of its split that a row of so many bytes goes to

Each part grows in a file of this machine, and is put whole when the next one begins. So one open part of each split
lies on disk, and one part at a time in memory.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from startup_ray.dataset import Dataset
from startup_ray.errors import StorageError, first_line
from startup_ray.outlet.rows import Row, read_rows, read_sizes
from startup_ray.outlet.target import Target
from startup_ray.progress import Part, Progress

TOLD_EVERY = 500
"""Images between two words about progress."""

Add = Callable[[Row], None]
OpenPart = Callable[[Path, Dataset], AbstractContextManager[Add]]
"""A file of this machine -> what adds rows to it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be exported, and where to."""

    dataset: Dataset
    splits: tuple[str, ...]
    part_bytes: int
    target: Target
    on_progress: Callable[[Progress], None]

    def rows(self) -> Iterator[Row]:
        """All rows, with a word now and then about how many are done."""
        total = sum(self.dataset.splits[split] for split in self.splits)
        for done, row in enumerate(read_rows(self.dataset, self.splits), 1):
            yield row
            if done % TOLD_EVERY == 0 or done == total:
                self.on_progress(Part(done, total, "images"))


@dataclass(frozen=True)
class Cut:
    """Where parts end: before the row with which they would exceed `limit` bytes, after one at least."""

    limit: int
    parts: Counter[str] = field(default_factory=Counter)
    """Begun so far, by split."""
    _filled: Counter[str] = field(default_factory=Counter)

    def place(self, split: str, size: int) -> int:
        """The part, from 0, that the next row of a split goes to."""
        if not self.parts[split] or self._filled[split] + size > self.limit:
            self.parts[split] += 1
            self._filled[split] = 0
        self._filled[split] += size
        return self.parts[split] - 1


def write_parts(work: Work, name: str, open_part: OpenPart, *, row_bytes: int) -> None:
    """Write all splits.

    Args:
        name: of a part, with the fields `split`, `number` and `total`. Only for `total` the images are read twice.
        open_part: what a part is.
        row_bytes: what a row takes beside its image, about.
    """
    totals = _count(work, row_bytes) if "{total" in name else Counter[str]()
    cut, growing = Cut(work.part_bytes), dict[str, _Growing]()
    with scratch() as folder, ExitStack() as all_parts:

        def put(split: str) -> None:
            part = growing.pop(split)
            file = name.format(split=split, number=part.number, total=totals[split])
            work.target.put(file, part.whole(), images=part.images)

        for row in work.rows():
            number = cut.place(row.split, row.stored_bytes + row_bytes)
            if row.split in growing and growing[row.split].number != number:
                put(row.split)
            if row.split not in growing:
                part = _Growing(number=number, path=folder / f"{row.split}-{number}")
                part.begin(all_parts, open_part, work.dataset)
                growing[row.split] = part
            growing[row.split].add(row)
        for split in list(growing):
            put(split)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this machine that is gone afterwards.

    Raises:
        StorageError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="startup-ray-") as folder:
        try:
            yield Path(folder)
        except OSError as error:
            hint = "set TMPDIR to a folder with room for a file of each split, or lower --shard-size"
            raise StorageError(f"cannot write here: {first_line(error)}", where=folder, hint=hint) from error


@dataclass(kw_only=True)
class _Growing:
    """A part that rows are still added to."""

    number: int
    path: Path
    images: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _add: Add = lambda _: None

    def begin(self, owner: ExitStack, open_part: OpenPart, dataset: Dataset) -> None:
        """Open its file, which `owner` closes if nothing else does."""
        owner.enter_context(self._stack)
        self._add = self._stack.enter_context(open_part(self.path, dataset))

    def add(self, row: Row) -> None:
        self._add(row)
        self.images += 1

    def whole(self) -> bytes:
        """Close the file, take what is in it, and remove it."""
        self._stack.close()
        data = self.path.read_bytes()
        self.path.unlink()
        return data


def _count(work: Work, row_bytes: int) -> Counter[str]:
    """Parts by split."""
    cut = Cut(work.part_bytes)
    for split, size in read_sizes(work.dataset, work.splits):
        cut.place(split, size + row_bytes)
    return cut.parts
