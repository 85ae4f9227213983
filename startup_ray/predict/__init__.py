"""Labels for new images by the model of a finished run.

    labelled = predict(run, ["photos/"], options=job.ingest)
    labelled[0].predicted, labelled[0].score

Images take the way of an ingest (`gather.py`) into a folder that is gone afterwards, and are scored as a split of a
dataset is. Laws: every item ends as one row, with a state that says what became of it; the same images get the same
scores, bit for bit, as from `startup-ray evaluate`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from startup_ray.dataset import Dataset, require_one_size
from startup_ray.ingest.chunks import IMAGES, LEDGER, names_in, read_part
from startup_ray.job import ImageOptions, IngestOptions
from startup_ray.predict.gather import SPLIT, gather, open_targets
from startup_ray.progress import Progress, ignore
from startup_ray.runs import read_classes
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.scoring import ScoringTask, make_scorer, open_model, part_count

BAD_SCORES = "bad_scores"
"""State of an image for which the model gives no numbers; all others are those of the ledger."""

Scored = tuple[str | None, float, tuple[tuple[str, float], ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What became of one item."""

    id: str
    status: str
    predicted: str | None = None
    score: float | None = None
    """Softmax probability of the predicted class."""
    top: tuple[tuple[str, float], ...] = ()
    """The most probable classes, each with its probability."""
    reason: str = ""
    """Why there is no label."""


def predict(
    run: Folder,
    targets: Sequence[str],
    *,
    options: IngestOptions,
    top: int = 3,
    on_progress: Callable[[Progress], None] = ignore,
) -> list[Prediction]:
    """Label images; the rows are in the order of the manifest, or of the ids of files.

    Args:
        run: of a finished run.
        targets: one manifest, or folders and image files.
        options: how images are fetched and what they are made into; the manifest that they name is not read.
        top: how many classes each row names.

    Raises:
        UsageError: nothing is there, or the model does not fit the images.
        ManifestError: the manifest cannot be read.
    """
    source = open_targets(targets)
    classes = read_classes(run)
    shape = options.image.shape
    require_one_size(shape, where="ingest.image.resize")
    model = open_model(run, shape, len(classes))  # rather than after an hour of fetching
    with tempfile.TemporaryDirectory(prefix="startup-ray-", ignore_cleanup_errors=True) as place:
        folder = Folder(place) / "images"
        if options.image.store == "original":  # decoded once, to the same pixels
            options = options.model_copy(update={"image": options.image.model_copy(update={"store": "png"})})
        gather(source, options, folder, on_progress)
        predictions = Folder(place) / "predictions"
        dataset = _dataset(folder, options.image)
        task = ScoringTask(run=run, classes=classes, dataset=dataset, split=SPLIT, predictions=predictions)
        if dataset.items:
            scorer = make_scorer(task, model, open_split(dataset, SPLIT, root=Path(place) / "cache"))
            for part in range(part_count(dataset.items)):
                scorer.predict(part)
        return list(_rows(folder, dict(_scored(task, top))))


def _dataset(folder: Folder, image: ImageOptions) -> Dataset:
    """What was gathered, as if it were the split of a dataset; nothing of it is written."""
    shards = tuple(f"{name}.parquet" for name in names_in(folder, IMAGES))
    images = sum(pq.read_metadata(folder.path(f"{IMAGES}/{shard}")).num_rows for shard in shards)
    return Dataset(
        folder=folder,
        digest="",
        items=images,
        counts={"ok": images},
        splits={"train": 0, "val": 0, SPLIT: images},
        classes=(),
        image_shape=image.shape,
        shards=shards,
        manifest="",
        manifest_digest="",
        image=image,
    )


def _scored(task: ScoringTask, top: int) -> Iterator[tuple[str, Scored]]:
    """Id, and what the model says, of each image."""
    for name in task.predictions.list():
        table = pq.read_table(task.predictions.path(name), columns=["id", "predicted", "scores"])
        for batch in table.to_batches(max_chunksize=1_000):  # of many classes the scores are many
            for row in batch.to_pylist():
                yield row["id"], _best(task.classes, row["predicted"], row["scores"], top)


def _best(classes: tuple[str, ...], predicted: str | None, scores: list[float], top: int) -> Scored:
    if predicted is None:
        return None, 0.0, ()
    # The class with the highest logit comes first, also where its probability rounds to that of another.
    order = [i for i in np.argsort(-np.asarray(scores), kind="stable").tolist() if classes[i] != predicted]
    first = classes.index(predicted)
    return predicted, scores[first], tuple((classes[i], scores[i]) for i in [first, *order][:top])


def _rows(folder: Folder, scored: dict[str, Scored]) -> Iterator[Prediction]:
    for name in names_in(folder, LEDGER):
        for row in read_part(folder, name, ["id", "status", "reason"]).table.to_pylist():
            if row["status"] != "ok":
                yield Prediction(**row)
                continue
            predicted, score, top = scored[row["id"]]
            if predicted is None:
                yield Prediction(id=row["id"], status=BAD_SCORES, reason="the model gives no finite scores")
            else:
                yield Prediction(id=row["id"], status="ok", predicted=predicted, score=score, top=top)
