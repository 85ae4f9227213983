"""What a report tells of a run, read from storage. What is not there is left out, not guessed."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nlargest
from http import HTTPStatus
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from startup_ray import runs
from startup_ray.comparison import last_evaluation
from startup_ray.dataset import Dataset, read_dataset
from startup_ray.errors import StorageError, UsageError
from startup_ray.ledger import STATES, redact
from startup_ray.storage import Folder

THUMBNAIL_SIZE = 80  # pixels; smaller images are kept as they are
_ARRIVED = ("ok", "duplicate", "not_image", "corrupt", "too_many_pixels", "too_small")
_URL = re.compile(r"https?://[^\s'\"<>]+")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Items left after a step of the data's way."""

    name: str
    items: int
    share: float
    """Of the manifest's items, in [0, 1]."""
    lost: int
    """Items that this step took away."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Items that ended in one state of the ledger."""

    status: str
    items: int
    meaning: str
    id: str
    """Of an example, with its URL and reason."""
    url: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong prediction."""

    id: str
    label: str
    predicted: str
    confidence: float
    """The model's probability for `predicted`."""
    url: str
    image: str
    """`data:` URI; empty if the image is gone."""


@dataclass(frozen=True, kw_only=True)
class View:
    """All that a report shows of one run."""

    name: str
    folder: str
    train: dict[str, Any]
    """Document of `train`; empty while unfinished."""
    evaluation: dict[str, Any]
    """Document of the last evaluation; empty if there is none."""
    has_predictions: bool = False
    history: list[dict[str, Any]]
    environment: dict[str, Any]
    job: dict[str, Any]
    job_text: str
    dataset: Dataset | None = None
    manifest: str = ""
    """Location, without secrets."""
    funnel: list[Stage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


def read_view(run: Folder, *, max_mistakes: int) -> View:
    """Read a run and its dataset.

    Raises:
        UsageError: no run lies here.
        StorageError: storage cannot be read.
    """
    try:
        job_text = without_secrets(run.read(runs.JOB).decode("utf-8", "replace"))
    except FileNotFoundError:
        raise UsageError("no run here: job.yaml is missing", where=str(run)) from None
    dataset = _dataset_of(run)
    judged = last_evaluation(run)
    evaluation = runs.read_json(judged, runs.EVALUATION) if judged else {}
    predictions = judged / "predictions" if judged else None
    loaded = yaml.safe_load(job_text)
    view = View(
        name=run.name,
        folder=str(run),
        train=runs.read_json(run, runs.EXIT),
        evaluation=evaluation,
        has_predictions=bool(predictions and predictions.list()),
        history=runs.read_history(run),
        environment=runs.read_json(run, runs.ENVIRONMENT),
        job=loaded if isinstance(loaded, dict) else {},
        job_text=job_text,
    )
    if dataset is None:
        return view
    return View(
        **view.__dict__
        | {
            "dataset": dataset,
            "manifest": without_secrets(dataset.manifest),
            "funnel": funnel(dataset),
            "left_out": left_out(dataset),
            "mistakes": mistakes(dataset, predictions, evaluation["classes"], max_mistakes) if predictions else [],
        }
    )


def without_secrets(text: str) -> str:
    """The text with every URL in it redacted (see `ledger.redact`)."""
    return _URL.sub(lambda found: redact(found[0]), text)


def funnel(dataset: Dataset) -> list[Stage]:
    """The way of the items: named in the manifest, arrived whole, readable as images, unique."""
    counts = dataset.counts
    steps = {
        "in the manifest": dataset.items,
        "fetched": sum(counts.get(status, 0) for status in _ARRIVED),
        "valid images": counts.get("ok", 0) + counts.get("duplicate", 0),
        "unique images": counts.get("ok", 0),
    }
    before = [dataset.items, *steps.values()]
    return [
        Stage(name=name, items=items, share=items / max(dataset.items, 1), lost=last - items)
        for last, (name, items) in zip(before, steps.items(), strict=False)
    ]


def left_out(dataset: Dataset) -> list[LeftOut]:
    """Every state but `ok`, the most frequent first, each with the example that stands first in the ledger."""
    wanted = {status for status in dataset.counts if status != "ok"}
    examples: dict[str, dict[str, Any]] = {}
    columns = ["status", "id", "url", "reason"]
    for table in _ledger(dataset, columns, pc.field("status") != "ok") if wanted else ():
        for row in table.to_pylist():
            examples.setdefault(row["status"], row)
        if wanted <= examples.keys():
            break
    found = [
        LeftOut(
            status=status,
            items=dataset.counts[status],
            meaning=meaning(status),
            **{key: examples.get(status, {}).get(key) or "" for key in ("id", "url", "reason")},
        )
        for status in wanted
    ]
    return sorted(found, key=lambda state: (-state.items, state.status))


def meaning(status: str) -> str:
    """What a state of the ledger means, an HTTP status by its name."""
    if not status.startswith("http_"):
        return STATES.get(status, "").replace("`", "")
    try:
        return f"the server answered {HTTPStatus(int(status[5:])).phrase!r}"
    except ValueError:
        return STATES["http_NNN"]


def mistakes(dataset: Dataset, predictions: Folder, classes: list[str], most: int) -> list[Mistake]:
    """Wrong predictions, the most confident first."""
    rows = nlargest(most, _wrong(predictions, classes), key=lambda row: (row[0], row[1]["id"]))
    ids = {row["id"] for _, row in rows}
    images, urls = _images(dataset, ids), _urls(dataset, ids)
    return [
        Mistake(
            id=row["id"],
            label=row["label"],
            predicted=row["predicted"],
            confidence=confidence,
            url=urls.get(row["id"], ""),
            image=thumbnail(images[row["id"]]) if row["id"] in images else "",
        )
        for confidence, row in rows
    ]


def thumbnail(encoded: bytes) -> str:
    """An image file -> `data:` URI of a PNG of at most THUMBNAIL_SIZE pixels a side; empty if it is damaged."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded))
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    except (OSError, ValueError, SyntaxError):  # Pillow raises each of them for broken files
        return ""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _dataset_of(run: Folder) -> Dataset | None:
    place = runs.read_json(run, runs.DATASET).get("dataset")
    try:
        return read_dataset(Folder(place)) if place else None
    except (UsageError, StorageError):  # moved or deleted since
        return None


def _wrong(predictions: Folder, classes: list[str]) -> Iterable[tuple[float, dict[str, Any]]]:
    """(probability, row) of wrong predictions, part by part, so that scores of large splits are never all held."""
    filesystem, root = predictions.filesystem()
    known = pa.array(classes, pa.string())
    for name in predictions.list():
        table = pq.read_table(f"{root}/{name}", filesystem=filesystem)
        differ = pc.fill_null(pc.not_equal(table["label"], table["predicted"]), False)
        wrong = table.filter(pc.and_(differ, pc.is_in(table["label"], known)))
        if not len(wrong):
            continue
        scores = np.asarray(wrong["scores"].combine_chunks().flatten()).reshape(len(wrong), -1)
        rows = wrong.select(["id", "label", "predicted"]).to_pylist()
        yield from zip(scores.max(axis=1, initial=0).astype(float).tolist(), rows, strict=True)


def _ledger(dataset: Dataset, columns: list[str], keep: Any) -> Iterable[Any]:
    filesystem, root = dataset.folder.filesystem()
    for name in dataset.folder.list("ledger"):
        yield pq.read_table(f"{root}/ledger/{name}", columns=columns, filters=keep, filesystem=filesystem)


def _urls(dataset: Dataset, ids: set[str]) -> dict[str, str]:
    keep = pc.field("id").isin(sorted(ids))
    tables = _ledger(dataset, ["id", "url"], keep) if ids else ()
    return {row["id"]: row["url"] for table in tables for row in table.to_pylist()}


def _images(dataset: Dataset, ids: set[str]) -> dict[str, bytes]:
    """Image files by id. Ids are read first, and images only of the row groups that hold one."""
    filesystem, root = dataset.folder.filesystem()
    found: dict[str, bytes] = {}
    for name in dataset.shards if ids else ():
        try:
            shard = pq.ParquetFile(f"{root}/images/{name}", filesystem=filesystem)
        except (OSError, ValueError):  # gone or damaged since
            continue
        for group in range(shard.num_row_groups):
            here = shard.read_row_group(group, ["id"])["id"].to_pylist()
            places = [i for i, item in enumerate(here) if item in ids]
            if places:
                images = shard.read_row_group(group, ["image"])["image"].take(places).to_pylist()
                found |= dict(zip([here[i] for i in places], images, strict=True))
    return found
