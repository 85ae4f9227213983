"""A dataset in the forms that other tools read: WebDataset, TFRecord, a folder of images, Parquet.

    document = export_dataset(dataset, to="webdataset")
    document["export"]                    # '<dataset>/exports/webdataset-1a2b3c4d'

Laws: read back, an export has the ids, labels, splits and pixels of the dataset, each once; the same dataset gives the
same bytes; images come in the order of the manifest. `<dataset>/exports/<8 hex>.json` tells of every export that was
begun, so that whoever removes an item knows where else it is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import startup_ray
from startup_ray.dataset import SPLITS, Dataset
from startup_ray.errors import UsageError
from startup_ray.lease import hold
from startup_ray.outlet import folder, parquet, tfrecord, webdataset
from startup_ray.outlet.names import folder_names
from startup_ray.outlet.parts import Work
from startup_ray.outlet.target import Target
from startup_ray.progress import Progress, ignore
from startup_ray.runs import EXPORTS, put_json
from startup_ray.storage import Folder, open_folder

FORMS: dict[str, Callable[[Work], None]] = {
    "webdataset": webdataset.write,
    "tfrecord": tfrecord.write,
    "folder": folder.write,
    "parquet": parquet.write,
}
PART_BYTES = 256_000_000
_OURS = re.compile(rf"({'|'.join(SPLITS)})-\d+(-of-\d+)?\.(tar|tfrecord)|features\.json|labels\.csv|images|data")


def export_dataset(
    dataset: Dataset,
    *,
    to: str,
    out: str | None = None,
    splits: Sequence[str] = (),
    part_bytes: int = PART_BYTES,
    fresh: bool = False,
    clock: Callable[[], float] = time.time,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Write a dataset in one of FORMS, or find it written.

    Args:
        to: the form.
        out: a folder or URI that is not there yet, or holds this export; `<dataset>/exports/...` by default.
        splits: of train, val, test; all that have images by default.
        part_bytes: of each file, about, for the forms that put many images into one.
        fresh: write it anew, in the place of any export that is there.

    Returns:
        The document of `startup-ray export-dataset --json`.

    Raises:
        UsageError: no such form or split, no images, or `out` holds something else.
        RunHeldError: another process is writing the dataset.
        StorageError: the dataset is damaged, or `out` cannot be written.
    """
    write = _find(to)
    chosen = _choose(dataset, splits)
    place = open_folder(out) if out else dataset.folder / EXPORTS / _name(dataset, to, chosen)
    _require_apart(place, dataset)
    target = Target(folder=place, identity=_identity(dataset, to, chosen, part_bytes), ours=_OURS)
    with hold(dataset.folder):  # so that nobody changes it meanwhile
        done = {} if fresh else target.finished()
        if not done:
            target.begin(fresh=fresh)
        _record(dataset, target, clock(), is_new=not done)
        if not done:
            work = Work(dataset=dataset, splits=chosen, part_bytes=part_bytes, target=target, on_progress=on_progress)
            write(work)
            done = target.finish(_about(dataset))
    return {
        "export": str(place),
        "to": to,
        "dataset": str(dataset.folder),
        "digest": dataset.digest,
        "files": done["count"],
        "bytes": done["bytes"],
        "splits": done["splits"],
    }


def _find(to: str) -> Callable[[Work], None]:
    if to not in FORMS:
        close = get_close_matches(to, FORMS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(FORMS)}"
        raise UsageError(f"no form of a dataset is called {to!r}", hint=hint)
    return FORMS[to]


def _choose(dataset: Dataset, splits: Sequence[str]) -> tuple[str, ...]:
    for split in splits:
        if not dataset.splits.get(split):
            there = ", ".join(f"{number:,} {name}" for name, number in dataset.splits.items())
            raise UsageError(f"no images in a split {split!r}", where=str(dataset.folder), hint=f"there are {there}")
    chosen = tuple(split for split in SPLITS if dataset.splits[split] and (not splits or split in splits))
    if not chosen:
        raise UsageError("this dataset has no images", where=str(dataset.folder))
    return chosen


def _name(dataset: Dataset, to: str, chosen: Sequence[str]) -> str:
    is_all = all(split in chosen or not number for split, number in dataset.splits.items())
    parts = [to, dataset.digest.removeprefix("sha256:")[:8], *([] if is_all else chosen)]
    return "-".join(parts)


def _require_apart(place: Folder, dataset: Dataset) -> None:
    """In the dataset's own folders, what it does not know is removed sooner or later."""
    whole, root = (
        folder.uri if folder.is_local else folder.uri.partition("?")[0] for folder in (place, dataset.folder)
    )
    below = whole.removeprefix(f"{root}/")
    if below != whole and not below.startswith(f"{EXPORTS}/"):
        hint = f"leave --out away: it is written below {dataset.folder.path(EXPORTS)}"
        raise UsageError("this is within the folder of the dataset", where=str(place), hint=hint)


def _identity(dataset: Dataset, to: str, chosen: Sequence[str], part_bytes: int) -> dict[str, Any]:
    """What makes two exports the same; the digest of a dataset does not count its own columns nor the images' form."""
    return {
        "to": to,
        "digest": dataset.digest,
        "manifest_digest": dataset.manifest_digest,
        "image": dataset.image.model_dump(mode="json"),
        "splits": {split: dataset.splits[split] for split in chosen},
        "part_bytes": part_bytes,
    }


def _about(dataset: Dataset) -> Mapping[str, Any]:
    return {
        "dataset": str(dataset.folder),
        "classes": list(dataset.classes),
        "class_folders": list(folder_names(dataset.classes)),
        "made_by": f"startup_ray {startup_ray.__version__}",
    }


def _record(dataset: Dataset, target: Target, now: float, *, is_new: bool) -> None:
    """Tell of an export before its first image: one that is killed has images in it, too."""
    place, splits = str(target.folder), target.identity["splits"]
    name = f"{EXPORTS}/{hashlib.sha256(place.encode()).hexdigest()[:8]}.json"
    if not is_new and dataset.folder.exists(name):
        return
    document = {
        "to": target.identity["to"],
        "out": place,
        "digest": dataset.digest,
        "splits": list(splits),
        "images": sum(splits.values()),
        "made": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    put_json(dataset.folder, name, document)
