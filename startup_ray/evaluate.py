"""Judge a trained model on a split: exact metrics, intervals, gates, and every prediction.

    document = evaluate(run, dataset, folder, options=job.evaluation, seed=job.seed)
    document["metrics"]["f1"], document["intervals"]["f1"], document["gates"]

Small splits are scored in this process, larger ones by Ray Data. Law: the document is the same, byte for byte,
for any partition and any number of workers. `evaluation.json` is written last: without it there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from startup_ray.confidence import intervals, wilson
from startup_ray.dataset import Dataset, require_one_size
from startup_ray.errors import DataError, StartupRayError, UsageError
from startup_ray.gates import Gate, check_gates, parse_gate
from startup_ray.job import EvaluationOptions
from startup_ray.judged import read_rows
from startup_ray.metrics import NAMES, RANKED, TOP, Stats
from startup_ray.progress import Part, Progress, ignore
from startup_ray.remote import pack_error, quiet_data, raise_packed, told_as_ours
from startup_ray.runs import BEST_MODEL, EVALUATION, put_json, read_classes
from startup_ray.slices import read_slices
from startup_ray.storage import Folder
from startup_ray.trainers.scoring import Scorer, ScoringTask, open_scorer, part_count

ACTOR_CPUS = 0.9  # below 1, so that a node whose CPUs are counted tightly still takes one
MAX_BLOCKS = 1_000  # of Ray Data, each with one part or several


def evaluate(
    run: Folder,
    dataset: Dataset,
    folder: Folder,
    *,
    options: EvaluationOptions,
    split: str = "test",
    seed: int = 0,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Score `<run>/model.keras` on a split; write `<folder>/predictions/*.parquet` and `<folder>/evaluation.json`.

    Args:
        run: where the model and its `classes.json` lie.
        dataset: whose rows are scored; its classes are matched to the model's by name.
        folder: of this evaluation.
        options: average, gates, and above how many rows Ray is used.
        split: train, val or test.
        seed: of the intervals' bootstrap.
        on_progress: called with `Progress` after each part.

    Returns:
        The document of `startup-ray evaluate --json`. Unmet gates are told in it, not raised.

    Raises:
        UsageError: no model, one that does not fit the dataset, an empty split, or a gate that cannot be read.
        DataError: a row is missing from the accounts.
        ClusterError: Ray lost the workers, or storage cannot be used.
    """
    classes = read_classes(run)
    gates = preflight(dataset, classes, options, split=split)
    total = dataset.splits[split]
    predictions = folder / "predictions"
    task = ScoringTask(run=run, classes=classes, dataset=dataset, split=split, predictions=predictions)
    stats = Stats.empty(len(classes))
    for stats in _in_process(task) if total <= options.ray_above_rows else _by_ray(task):
        on_progress(Part(stats.rows()["total"], total, "rows"))
    if stats.rows()["total"] != total:
        raise DataError(f"the accounts do not close: {stats.rows()} for {total} rows", where=str(folder))
    document = {
        "evaluation": str(folder),
        "predictions": str(predictions),
        "model": run.path(BEST_MODEL),
        "dataset": str(dataset.folder),
        "dataset_digest": dataset.digest,
        "split": split,
    } | judge(stats, classes, gates, average=options.average, seed=seed)
    document["slices"] = read_slices(
        read_rows(predictions, classes), dataset, options.slices, num_classes=len(classes), average=options.average
    )
    put_json(folder, EVALUATION, document)
    return document


def preflight(
    dataset: Dataset, classes: tuple[str, ...], options: EvaluationOptions, *, split: str = "test"
) -> list[Gate]:
    """The gates, after seeing that they are about these classes and that there will be something to judge.

    Raises:
        UsageError: images of many sizes, an empty split, no class in common, or a gate that cannot be read.
    """
    require_one_size(dataset.image_shape, where=str(dataset.folder))
    gates = [parse_gate(text, classes) for text in options.gates]
    for gate in gates:
        if gate.metric not in NAMES:
            raise UsageError("a classifier has no such metric", where=f"gate {gate.text!r}", hint="it is one of GANs")
    _require_rows(dataset, split, classes)
    return gates


def judge(stats: Stats, classes: tuple[str, ...], gates: list[Gate], *, average: str, seed: int) -> dict[str, Any]:
    """The part of an evaluation's document that follows from its statistics."""
    found = stats.per_class()
    names = ("precision", "recall", "f1", "support")
    ends = intervals(stats.confusion, seed, average=average)
    if stats.scored:
        ends |= {f"top_{k}_accuracy": wilson(hits, stats.scored) for k, hits in zip(TOP, stats.top, strict=True)}
    ranked = stats.ranked_per_class()
    document: dict[str, Any] = {
        "rows": stats.rows(),
        "average": average,
        "metrics": stats.scores(average),
        "intervals": {name: list(pair) for name, pair in ends.items()},
        "bounds": {name: list(value[1:]) for name, value in stats.bounds().items() if value},
        "classes": list(classes),
        "per_class": [
            {"class": label}
            | {name: found[name][i].item() for name in names}
            | {name: ranked[name][i] if ranked[name] else None for name in RANKED}
            for i, label in enumerate(classes)
        ],
        "calibration": stats.calibration.table(),
        "confusion": stats.confusion.tolist(),
    }
    return document | {"gates": check_gates(gates, document)}


def _require_rows(dataset: Dataset, split: str, classes: tuple[str, ...]) -> None:
    place = str(dataset.folder)
    if not dataset.splits.get(split, 0):
        counts = ", ".join(f"{name} {count}" for name, count in dataset.splits.items())
        hint = f"its splits: {counts}; see `ingest.split` in the job file"
        raise UsageError(f"no images in the {split!r} split", where=place, hint=hint)
    if dataset.classes and not set(dataset.classes) & set(classes):
        hint = f"dataset: {_some(dataset.classes)}; model: {_some(classes)}"
        raise UsageError("the dataset and the model have no class in common", where=place, hint=hint)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _in_process(task: ScoringTask) -> Iterator[Stats]:
    """Statistics of all parts so far."""
    scorer, stats = open_scorer(task), Stats.empty(len(task.classes))
    for part in range(part_count(task.dataset.splits[task.split])):
        stats = scorer.score(part, stats)
        yield stats


def _by_ray(task: ScoringTask) -> Iterator[Stats]:
    """Statistics of all parts that have arrived so far. Ray may score a part twice, but it hands on one answer."""
    import ray

    parts = part_count(task.dataset.splits[task.split])
    # A CPU is left to the rest of Ray Data: actors that take all of them starve it.
    workers = min(parts, max(1, int(ray.cluster_resources().get("CPU", 1)) - 1))
    with told_as_ours("evaluation"), quiet_data():
        numbers = ray.data.from_items([{"part": i} for i in range(parts)], override_num_blocks=min(parts, MAX_BLOCKS))
        answers = numbers.map_batches(
            _ScoringActor,
            fn_constructor_args=(task,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=ACTOR_CPUS,
        )
        stats = Stats.empty(len(task.classes))
        for answer in answers.iter_rows():
            raise_packed(answer["error"])
            stats = stats.merge(Stats.unpack(answer["stats"]))
            yield stats


class _ScoringActor:
    """Loads the model once."""

    def __init__(self, task: ScoringTask) -> None:
        self._opened: Scorer | StartupRayError
        try:
            self._opened = open_scorer(task)
        except StartupRayError as error:
            self._opened = error

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        try:
            if isinstance(self._opened, StartupRayError):
                raise self._opened
            stats = Stats.empty(len(self._opened.task.classes))
            for part in batch["part"].tolist():
                stats = self._opened.score(part, stats)
        except StartupRayError as error:
            return {"stats": [b""], "error": [pack_error(error)]}
        return {"stats": [stats.pack()], "error": [b""]}
