"""Labels that a trained model doubts, by confident learning.

    run = newest_judge(dataset)
    doubts = read_doubts(run, dataset)
    doubts.rows[0]                      # Doubt(id='7', label='cat', likely='dog', margin=0.93, split='test')

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 2021), section 3:
a class's threshold is the mean probability that the model gives it over the images labelled so. An image is doubted
if, of the classes whose threshold it reaches, the most probable is not its label. Thresholds are those of a split,
because a model is surer of what it was trained on. Scores are read part by part, twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from startup_ray import runs
from startup_ray.audit.finding import Finding, of_splits
from startup_ray.dataset import SPLITS, Dataset
from startup_ray.runs import Run
from startup_ray.storage import Folder

MOST = 200
"""Rows that are told, the surest."""


@dataclass(frozen=True, kw_only=True, order=True)
class Doubt:
    """A row whose label is likely wrong."""

    margin: float
    """Probability of `likely` less that of `label`."""
    id: str
    label: str
    likely: str
    split: str


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """Of the rows of some splits that have a label and scores."""

    run: str = ""
    """Name of the run; empty if there is none that judges the dataset."""
    rows: list[Doubt] = field(default_factory=list)
    """The surest first, at most MOST."""
    counts: dict[str, int] = field(default_factory=dict)
    """Doubted rows per judged split."""
    judged: dict[str, int] = field(default_factory=dict)
    """Rows per judged split."""
    has_learnt: bool = False
    """The model was trained on the train split of this very dataset."""


def newest_judge(dataset: Dataset) -> Run | None:
    """The finished classifier's run of this dataset, evaluated on it, that was changed last; None without any."""
    storage = dataset.folder.parent.parent
    if dataset.folder.parent.name != "datasets" or str(storage).endswith(":/"):  # it lies in no storage of ours
        return None
    place = storage / "runs"
    known = {"dataset": str(dataset.folder), "digest": dataset.digest}
    ours = [place / name for name in place.list() if runs.read_json(place / name, runs.DATASET) == known]
    found = [run for folder in ours if (run := runs.read_run(folder)).is_finished and not run.is_gan]
    judged = [run for run in found if evaluated(run, dataset)]
    return max(judged, key=lambda run: run.folder.usage()[1], default=None)


def evaluated(run: Run, dataset: Dataset) -> dict[str, Folder]:
    """By split: the predictions of this run on this state of the dataset."""
    found = {}
    for key in run.folder.list("evaluations"):
        folder = run.folder / "evaluations" / key
        document = runs.read_json(folder, runs.EVALUATION) if folder.exists(runs.EVALUATION) else {}
        if document.get("dataset_digest") == dataset.digest and document.get("split") in SPLITS:
            found[document["split"]] = folder / "predictions"
    return found


def read_doubts(run: Run, dataset: Dataset, *, scores_rest: bool = False) -> Doubts:
    """Doubts about the rows that a run has scored, by its stored predictions.

    Args:
        scores_rest: score the splits that it was not evaluated on as well, in this process; this needs TensorFlow.

    Raises:
        UsageError: the model does not fit the dataset.
        StorageError: something cannot be read.
    """
    classes = runs.read_classes(run.folder)
    learnt = runs.read_json(run.folder, runs.DATASET).get("digest") == dataset.digest
    with tempfile.TemporaryDirectory(prefix="startup-ray-") as own:
        places = evaluated(run, dataset)
        if scores_rest:
            places |= _scored(run, dataset, classes, Folder(own), [split for split in SPLITS if split not in places])
        return _doubts(places, classes, name=run.folder.name, has_learnt=learnt)


def finding(doubts: Doubts) -> Finding:
    """Whose examples are the ids of the rows."""
    return Finding(
        kind="likely_wrong_labels",
        count=sum(doubts.counts.values()),
        of=sum(doubts.judged.values()),
        note=f"{of_splits(doubts.counts)}; by {doubts.run}",
        names=tuple(doubt.id for doubt in doubts.rows),
    )


def _scored(
    run: Run, dataset: Dataset, classes: tuple[str, ...], target: Folder, splits: Sequence[str]
) -> dict[str, Folder]:
    from startup_ray.metrics import Stats
    from startup_ray.trainers.scoring import ScoringTask, open_scorer, part_count

    found = {split: target / split for split in splits if dataset.splits.get(split, 0)}
    for split, folder in found.items():
        task = ScoringTask(run=run.folder, classes=classes, dataset=dataset, split=split, predictions=folder)
        scorer, stats = open_scorer(task), Stats.empty(len(classes))
        for part in range(part_count(dataset.splits[split])):
            stats = scorer.score(part, stats)
    return found


def _doubts(places: Mapping[str, Folder], classes: Sequence[str], *, name: str, has_learnt: bool) -> Doubts:
    heap: list[Doubt] = []
    counts, judged = {}, {}
    for split, folder in sorted(places.items(), key=lambda pair: SPLITS.index(pair[0])):
        counts[split], judged[split] = 0, 0
        limits = thresholds(folder, classes)
        for ids, labels, scores in _parts(folder, classes):
            likely, is_doubted = doubted(labels, scores, limits)
            judged[split] += len(labels)
            counts[split] += int(is_doubted.sum())
            for i in np.flatnonzero(is_doubted).tolist():
                margin = float(scores[i, likely[i]] - scores[i, labels[i]])
                doubt = Doubt(
                    margin=margin, id=ids[i].as_py(), label=classes[labels[i]], likely=classes[likely[i]], split=split
                )
                heappushpop(heap, doubt) if len(heap) == MOST else heappush(heap, doubt)
    return Doubts(run=name, rows=sorted(heap, reverse=True), counts=counts, judged=judged, has_learnt=has_learnt)


def thresholds(predictions: Folder, classes: Sequence[str]) -> NDArray[np.float64]:
    """float64 [classes]: mean probability of each class over the rows labelled so; infinite without such rows."""
    sums, rows = np.zeros((2, len(classes)))
    for _, labels, scores in _parts(predictions, classes):
        np.add.at(sums, labels, scores[np.arange(len(labels)), labels])
        np.add.at(rows, labels, 1)
    means = np.full(len(classes), np.inf)
    np.divide(sums, rows, out=means, where=rows > 0)
    return means


def doubted(
    labels: NDArray[np.int64], scores: NDArray[np.float64], limits: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The likely class of each row, int64 [N], and whether it is one that is not the label, bool [N].

    Args:
        scores: probabilities, float64 [N, classes].
        limits: of `thresholds`.
    """
    reached = np.where(scores >= limits, scores, -1.0)
    likely = reached.argmax(axis=1)
    is_given = scores.argmax(axis=1) == labels  # no doubt, however unsure: as cleanlab's `find_label_issues` has it
    return likely, (reached.max(axis=1) >= 0) & (likely != labels) & ~is_given


def _parts(predictions: Folder, classes: Sequence[str]) -> Iterator[tuple[Any, NDArray[np.int64], NDArray[np.float64]]]:
    """Ids, labels and scores of the rows that have a label of the model and finite scores."""
    filesystem, root = predictions.filesystem()
    names = pa.array(classes, pa.string())
    for name in predictions.list():
        table = pq.read_table(f"{root}/{name}", columns=["id", "label", "scores"], filesystem=filesystem)
        table = table.filter(pc.is_in(table["label"], names))
        if not table.num_rows:
            continue
        scores = np.asarray(table["scores"].combine_chunks().flatten(), np.float64).reshape(table.num_rows, -1)
        labels = np.asarray(pc.index_in(table["label"], names).to_numpy(), np.int64)
        is_finite = np.isfinite(scores).all(axis=1)
        yield table["id"].filter(pa.array(is_finite)), labels[is_finite], scores[is_finite]
