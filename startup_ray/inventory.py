"""What lies in a storage: datasets, runs and sweeps with state, size and age; and its safe deletion.

    found = entries("runs")
    stopped = [entry for entry in found if entry.state == "stopped"]
    for entry in delete(stopped, found):
        print(entry.kind, entry.name, entry.bytes)

Only folders that we have made count: other things in a storage are neither listed nor touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from startup_ray.errors import RunHeldError, UsageError
from startup_ray.lease import LEASE, hold, living_owner
from startup_ray.runs import DATASET, EXIT, JOB, read_json
from startup_ray.storage import Folder, open_folder

Kind = Literal["dataset", "run", "sweep"]
State = Literal["finished", "running", "stopped"]

_MARKS: dict[Kind, tuple[str, str, tuple[str, ...]]] = {
    "dataset": ("datasets", DATASET, (DATASET, "chunks", "ledger")),
    "run": ("runs", EXIT, (JOB,)),
    "sweep": ("sweeps", EXIT, (JOB,)),
}
"""Per kind: where they lie, the file that says it is finished, and what tells a folder of ours, whatever its state."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    kind: Kind
    name: str
    folder: Folder
    state: State
    """`stopped`: begun, neither finished nor at work."""
    owner: str
    """Who is at work, if it is running."""
    bytes: int
    changed: float
    """Time of the last change, seconds since the epoch."""
    dataset: str = ""
    """Folder of the dataset that a run or a sweep has learnt from, as it was then."""

    def has_seen(self, folder: Folder) -> bool:
        """Whether that is the dataset in a folder of this storage.

        By its name: the storage may have been moved since, or be reached by another query.
        """
        seen = Folder(self.dataset)
        return bool(self.dataset) and (seen.parent.name, seen.name) == (folder.parent.name, folder.name)


def entries(storage: str, *, clock: Callable[[], float] = time.time) -> list[Entry]:
    """All there is, by kind, then the last changed first.

    Raises:
        StorageError: it cannot be read.
    """
    root = open_folder(storage)
    found: list[Entry] = []
    with ThreadPoolExecutor(16) as pool:  # an object store answers slowly, but many at a time
        for kind, (place, _, _) in _MARKS.items():
            folders = [root / place / name for name in (root / place).list()]
            read = pool.map(lambda folder, kind=kind: _read(kind, folder, clock), folders)
            found += sorted((entry for entry in read if entry), key=lambda entry: -entry.changed)
    return found


def delete(chosen: Sequence[Entry], all_entries: Sequence[Entry]) -> Iterator[Entry]:
    """Delete, runs before datasets; each is told when it is gone.

    Raises:
        RunHeldError: a process is at work in one; nothing is deleted, or those before it if it has just begun.
        UsageError: a run that stays needs one of the datasets; nothing is deleted.
    """
    _require_idle(chosen)
    _require_unused(chosen, all_entries)
    for entry in sorted(chosen, key=lambda entry: entry.kind == "dataset"):
        _delete(entry)
        yield entry


def _require_idle(chosen: Sequence[Entry]) -> None:
    for entry in chosen:
        if entry.state == "running":
            raise RunHeldError(f"{entry.owner} is writing this folder", where=str(entry.folder), hint="stop it first")


def _require_unused(chosen: Sequence[Entry], all_entries: Sequence[Entry]) -> None:
    gone = {entry.folder for entry in chosen}
    for dataset in (entry for entry in chosen if entry.kind == "dataset"):
        users = [e.name for e in all_entries if e.has_seen(dataset.folder) and e.folder not in gone]
        if users:
            raise UsageError(
                f"{dataset.name} is the dataset of {', '.join(users[:3])}" + (", ..." if len(users) > 3 else ""),
                where=str(dataset.folder),
                hint="a run is evaluated, and a sweep goes on, with its dataset: delete both together, or keep both",
            )


def _delete(entry: Entry) -> None:
    with hold(entry.folder):  # as its one writer, so that nobody begins to write meanwhile
        _, finished, marks = _MARKS[entry.kind]
        entry.folder.delete(finished)  # first: what is half deleted is not taken for whole
        for name in entry.folder.list():
            if name not in (LEASE, *marks):
                entry.folder.delete(name)
        entry.folder.parent.delete(entry.folder.name)


def _read(kind: Kind, folder: Folder, clock: Callable[[], float]) -> Entry | None:
    _, finished, marks = _MARKS[kind]
    names = folder.list()
    if not set(marks) & set(names):
        return None
    owner = living_owner(folder, clock=clock)
    size, changed = folder.usage()
    return Entry(
        kind=kind,
        name=folder.name,
        folder=folder,
        state="running" if owner else "finished" if finished in names else "stopped",
        owner=owner,
        bytes=size,
        changed=changed,
        dataset=str(read_json(folder, DATASET).get("dataset", "")) if kind != "dataset" else "",
    )
