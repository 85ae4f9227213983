"""A dataset: images in Parquet, each with its split, and a digest that names the content.

    dataset = read_dataset(folder)
    dataset.splits                      # {'train': 1257, 'val': 180, 'test': 360}
    table = read_split(dataset, "train", ["id", "label", "image"])     # rows in id order

`images/*.parquet` has the columns of `image_schema`; what `image` holds is said by `Dataset.image.store`, and
`stored.pixels_of` makes pixels of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from startup_ray.errors import DataError, StorageError, UsageError, first_line
from startup_ray.job import ImageOptions, SplitOptions
from startup_ray.ledger import FORGOTTEN, NOT_FAILED, SUCCESS
from startup_ray.runs import DATASET, put_json, read_json
from startup_ray.sources import is_place
from startup_ray.storage import Folder

SPLITS = ("train", "val", "test")
NO_LABEL = -1
"""Class index of an image without a label."""
_HINT = "run `startup-ray ingest JOB --fresh`"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Where a dataset lies and what is in it."""

    folder: Folder
    digest: str
    """`sha256:` and hex over the rows sorted by id (see `Digest`)."""
    items: int
    """Rows of the manifest; the sum of `counts`."""
    counts: dict[str, int]
    """Items per state of the ledger."""
    splits: dict[str, int]
    """Images per split: train, val, test."""
    classes: tuple[str, ...]
    """Names in order; a label's class index is its place here."""
    image_shape: tuple[int, int, int]
    """Height, width, channels of every image; height and width are 0 where each has a size of its own."""
    shards: tuple[str, ...]
    """Files in `images/` that belong to the dataset."""
    manifest: str
    manifest_digest: str
    image: ImageOptions = field(default_factory=ImageOptions)
    """What images were made into and how they are stored; what is older than these options is PNG or JPEG."""
    group: str | None = None
    """What was kept in one split, see `ingest.split.group`."""

    def document(self) -> dict[str, Any]:
        """What `ingest --json` prints."""
        return {
            "dataset": str(self.folder),
            "digest": self.digest,
            "items": self.items,
            "counts": self.counts,
            "splits": self.splits,
            "classes": list(self.classes),
        }


def image_schema() -> Any:
    """`pyarrow.Schema` of `images/*.parquet`.

    width and height are those of the original, in pixels; own is a JSON object of the item's other columns, or null.
    """
    import pyarrow as pa

    strings = [pa.field(name, pa.string()) for name in ("id", "sha256", "label", "split")]
    return pa.schema(
        [*strings, ("width", pa.int32()), ("height", pa.int32()), ("own", pa.string()), ("image", pa.binary())]
    )


def choose_split(url: str, sha256: str, options: SplitOptions) -> str:
    """Split of an item without one of its own, by its body's sha256 or by its host.

    Neither changes as a manifest grows. By content equal bodies never straddle two splits; by host nor do
    the pictures of one site, which often resemble each other.
    """
    if options.by == "host" and not is_place(url):  # all that lies in one place would be in one split
        host = (urlsplit(url).hostname or "").encode()
        return split_of(hashlib.sha256(host).hexdigest(), options)
    return split_of(sha256, options)


def split_of(digest: str, options: SplitOptions) -> str:
    """Split by a hex digest, read as a number in [0, 1)."""
    place = int(digest[:13], 16) / 16**13  # 52 bits fit a float exactly
    if place < options.test:
        return "test"
    return "val" if place < options.test + options.val else "train"


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels in order: as numbers if all are whole numbers, else by code point."""
    names = set(labels)
    is_numeric = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if is_numeric else (0, name)))


class Digest:
    """sha256 over rows sorted by id: per row the JSON array [id, sha256, label, split] and a newline.

    Where regions of an image were blurred, its sha256 is followed by a blank and the ledger's reason.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, rows: Iterable[tuple[str, str, str | None, str]]) -> None:
        """Add rows that follow, in id order, those added before."""
        for row in rows:
            self._hash.update(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")

    def text(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write_dataset(dataset: Dataset) -> None:
    """Write `dataset.json`, the last file of a dataset: without it there is none."""
    document = dataset.document() | {
        "image_shape": list(dataset.image_shape),
        "shards": list(dataset.shards),
        "manifest": dataset.manifest,
        "manifest_digest": dataset.manifest_digest,
        "image": dataset.image.model_dump(mode="json"),
        "group": dataset.group,
    }
    put_json(dataset.folder, DATASET, document)


def read_dataset(folder: Folder, name: str = DATASET) -> Dataset:
    """A finished dataset, by the file that says so.

    Raises:
        UsageError: there is none in this folder.
    """
    found = read_json(folder, name)
    place = found.pop("dataset", None)
    if "shards" not in found:  # no file, or that of a run, which has the name and digest of its dataset alone
        hint = f"this is a run of {place}" if place else "run `startup-ray ingest JOB` first"
        raise UsageError("no finished dataset here", where=str(folder), hint=hint)
    found["classes"] = tuple(found["classes"])
    found["shards"] = tuple(found["shards"])
    found["image_shape"] = tuple(found["image_shape"])
    older = {"size": found["image_shape"][:2], "channels": found["image_shape"][2]}
    found["image"] = ImageOptions.model_validate(found.get("image", older))
    return Dataset(folder=folder, **found)


def require_one_size(image_shape: tuple[int, int, int], *, where: str) -> None:
    """See that images of this shape can stand in one array.

    Args:
        image_shape: of a dataset, or what a job asks for (`ImageOptions.shape`).

    Raises:
        UsageError: each has a size of its own.
    """
    if 0 in image_shape[:2]:
        raise UsageError(
            "each image has a size of its own, and a model takes images of one size",
            where=where,
            hint="set ingest.image.resize to center_crop or border, and ingest again; export-dataset and audit take "
            "this one as it is",
        )


def require_success(dataset: Dataset, min_success: float) -> None:
    """See that enough items have become images, at least one.

    Args:
        min_success: share of the items that were not forgotten, in [0, 1].

    Raises:
        DataError: with the most frequent failures and the dataset's document as `result`.
    """
    good = sum(dataset.counts.get(status, 0) for status in SUCCESS)
    items = dataset.items - dataset.counts.get(FORGOTTEN, 0)
    if dataset.counts.get("ok", 0) > 0 and good >= min_success * items:
        return
    failures = [f"{status} {number}" for status, number in dataset.counts.items() if status not in NOT_FAILED]
    raise DataError(
        f"{good} of {items} items succeeded ({good / max(items, 1):.1%}), ingest.min_success asks for "
        f"{min_success:.1%}: {', '.join(failures[:5])}",
        where=str(dataset.folder),
        hint=f"see status and reason in {dataset.folder.path('ledger')}/*.parquet; mend the cause and run "
        "`startup-ray ingest JOB --retry-failed`, or lower ingest.min_success",
        result=dataset.document(),
    )


def require_count(dataset: Dataset, split: str, rows: int) -> None:
    """See that the shards hold the images of a split that `dataset.json` counts.

    Raises:
        StorageError: they do not.
    """
    if rows != dataset.splits[split]:
        raise StorageError(
            f"{rows} images in the {split} split, dataset.json counts {dataset.splits[split]}",
            where=str(dataset.folder),
            hint=_HINT,
        )


def damaged(dataset: Dataset, shard: str, error: Exception) -> StorageError:
    """What to tell of a file in `images/` that cannot be read, or an image in it."""
    where = dataset.folder.path(f"images/{shard}")
    return StorageError(f"cannot read the dataset: {first_line(error)}", where=where, hint=_HINT)


def read_split(dataset: Dataset, split: str, columns: Sequence[str]) -> Any:
    """`pyarrow.Table` with these columns of one split, in id order.

    Raises:
        StorageError: the files on storage are not those that `dataset.json` counts.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    filesystem, root = dataset.folder.filesystem()
    paths = [f"{root}/images/{name}" for name in dataset.shards]
    wanted = list(dict.fromkeys(["id", *columns]))
    try:
        table = pq.read_table(paths, columns=wanted, filters=pc.field("split") == split, filesystem=filesystem)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the dataset: {error}", where=str(dataset.folder)) from error
    require_count(dataset, split, table.num_rows)
    return table.sort_by("id").select(list(columns))
