"""Who has seen items of a dataset: runs, sweeps, evaluations, reports and exports.

    for witness in witnesses(dataset_folder, {"7": "train"}, entries("runs")):
        witness.kind, witness.path, witness.splits          # run, .../runs/pets-1a2b3c4d-1, ('train',)

Nothing is changed. A run counts if it was made of this dataset, in whatever state that was: which items it held then
nobody knows any more, and a doubt is told rather than hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from startup_ray.dataset import SPLITS
from startup_ray.inventory import Entry
from startup_ray.runs import COMPARISON, EXPORTS, REPORT, read_json
from startup_ray.storage import Folder

Kind = Literal["run", "sweep", "evaluation", "report", "export"]


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What has seen something that was forgotten."""

    kind: Kind
    name: str
    """Of the run or sweep, as `startup-ray runs delete` takes it; of an export of the dataset, its form."""
    path: str
    splits: tuple[str, ...]
    """In which it has seen it: train was learnt from, by val the model was chosen, on test it was judged."""

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"splits": list(self.splits)}


def witnesses(folder: Folder, items: Mapping[str, str], found: Sequence[Entry]) -> Iterator[Witness]:
    """All that has seen one of the items (id -> split) of the dataset in a folder.

    Args:
        found: what lies in the storage.

    Raises:
        StorageError: it cannot be read.
    """
    splits = tuple(split for split in SPLITS if split in items.values())
    if not splits:  # no image was ever kept
        return
    for entry in found:
        if entry.has_seen(folder):
            yield from _of_run(entry, items, splits)
    yield from _exports(folder, splits)


def still_there(document: Mapping[str, Any]) -> bool:
    """Whether what a former request named is there yet."""
    return Folder(document["path"]).exists()


def _of_run(entry: Entry, items: Mapping[str, str], splits: tuple[str, ...]) -> Iterator[Witness]:
    kind: Kind = "sweep" if entry.kind == "sweep" else "run"
    yield Witness(kind=kind, name=entry.name, path=str(entry.folder), splits=splits)
    for key in (entry.folder / "evaluations").list():
        judged = entry.folder / "evaluations" / key
        if not key.endswith(".json") and (ids := _predicted(judged, items.keys())):
            of = tuple(split for split in SPLITS if split in {items[name] for name in ids})
            yield Witness(kind="evaluation", name=entry.name, path=str(judged), splits=of)
    for page in (REPORT, COMPARISON):
        if entry.folder.exists(page):
            yield Witness(kind="report", name=entry.name, path=entry.folder.path(page), splits=splits)
    if entry.folder.exists(EXPORTS) and "train" in splits:
        yield Witness(kind="export", name=entry.name, path=entry.folder.path(EXPORTS), splits=("train",))


def _predicted(judged: Folder, ids: Collection[str]) -> set[str]:
    """Those of the ids that an evaluation has predictions of."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    filesystem, root = judged.filesystem()
    wanted = pc.field("id").isin(list(ids))
    found: set[str] = set()
    for part in (judged / "predictions").list():
        path = f"{root}/predictions/{part}"
        found |= set(pq.read_table(path, columns=["id"], filters=wanted, filesystem=filesystem)["id"].to_pylist())
    return found


def _exports(folder: Folder, splits: tuple[str, ...]) -> Iterator[Witness]:
    """Copies of the dataset in other forms, by the records that `export-dataset` leaves."""
    for name in (folder / EXPORTS).list():
        record = read_json(folder / EXPORTS, name) if name.endswith(".json") else {}
        of, out = tuple(split for split in splits if split in record.get("splits", ())), Folder(record.get("out", ""))
        # It has moved with the dataset that it lies in.
        place = next((at for at in (out, folder / EXPORTS / out.name) if out.name and at.exists()), None)
        if of and place:
            yield Witness(kind="export", name=record.get("to", ""), path=str(place), splits=of)
