"""Keys and paths of datasets and runs, each named once. The folder is the truth.

    <storage>/datasets/<name>-<key>[-<n>]/  dataset.json images/*.parquet ledger/*.parquet audit.html
    <storage>/runs/<name>-<key>-<n>/        job.yaml environment.json metrics/*.jsonl checkpoints/<step>/ LATEST
                                            model.keras last.keras classes.json exit.json
                                            samples/<epoch>.png features.keras (GANs)
                                            evaluations/<key>/{evaluation.json, predictions/*.parquet} report.html
                                            exports/{model.keras, savedmodel/, model.onnx, classes.json}
    <storage>/sweeps/<name>-<key>-<n>/      job.yaml environment.json trials/<number>/ (each a run) exit.json
                                            report.html best.yaml trials.csv optuna.sqlite3
    <storage>/forgotten/<request>.json      what no ingest lets in again

Same key: resume, or print the result again when finished. Changed key: a new folder. Fresh: the next n.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from startup_ray.errors import StorageError, UsageError
from startup_ray.job import EvaluationOptions, ImageOptions, IngestOptions, ModelOptions, TrainingOptions
from startup_ray.storage import Folder, open_folder
from startup_ray.sweep_options import SweepOptions

DATASET = "dataset.json"
JOB = "job.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics"
EXIT = "exit.json"
EVALUATION = "evaluation.json"
REPORT = "report.html"
AUDIT = "audit.html"
COMPARISON = "comparison.html"
LAST_EVALUATION = "evaluations/last.json"
CLASSES = "classes.json"
BEST_MODEL = "model.keras"
LAST_MODEL = "last.keras"
EXPORTS = "exports"
SAMPLES = "samples"
SWEEP = "sweep.json"
"""In the folder of a run: the sweep that its values come from."""
USED = "used.json"
"""What a trial of a sweep was trained with, as its worker has seen it."""
FEATURES = "features.keras"
"""By which a GAN's images are judged."""


@dataclass(frozen=True)
class Run:
    """A training run: where it lies, and the document that `train` prints (empty while unfinished)."""

    folder: Folder
    document: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        return bool(self.document)

    @property
    def is_gan(self) -> bool:
        return self.document.get("kind") == "gan"


def dataset_key(ingest: IngestOptions) -> str:
    """8 hex digits from the manifest's location, image and split options, and columns with names of their own."""
    columns = _changed(ingest.columns)
    split = {name: value for name, value in _plain(ingest.split).items() if name != "group" or value}
    return _key(location_of(ingest.manifest), _plain(ingest.image), split, *([columns] if columns else []))


def run_key(
    digest: str, image: ImageOptions, model: ModelOptions, training: TrainingOptions, seed: int, *, code: str = ""
) -> str:
    """8 hex digits from what decides the weights: not scaling, evaluation or storage.

    A dataset's digest names the fetched bodies, so what they are made into counts beside it. Options that are as they
    are by default do not count, so that a new one changes no key.

    Args:
        code: a digest of the source of the user's own model.
    """
    parts = [digest, _plain(image), {"kind": model.kind, **_changed(model)}, _changed(training), seed]
    return _key(*parts, *([code] if code else []))


def sweep_key(run: str, options: SweepOptions) -> str:
    """8 hex digits from the key of the run that is varied, and from what decides what is found, but not how much of it.

    So a sweep with more trials or a larger budget goes on with what was found before.
    """
    more = {"metric", "mode", "searcher", "scheduler", "min_epochs", "reduction"}
    return _key(run, options.model_dump(mode="json", include=more), sorted(options.space.items()))


def extent(options: SweepOptions) -> dict[str, Any]:
    """How much a sweep is asked to find: it has finished when it was asked for the same before."""
    return options.model_dump(mode="json", include={"trials", "budget", "epochs", "confirm", "seeds", "test"})


def evaluation_key(dataset_digest: str, split: str, options: EvaluationOptions) -> str:
    """8 hex digits from what is judged and how; where it is computed does not count."""
    of_gans = [options.samples, options.features] if (options.samples, options.features) != (2_000, None) else []
    return _key(dataset_digest, split, options.average, list(options.gates), list(options.slices), *of_gans)


def location_of(manifest: str) -> str:
    """A manifest's location as it counts for keys: URLs and samples as they are, paths absolute."""
    is_path = "://" not in manifest and not manifest.startswith("sample:")
    return os.path.abspath(os.path.expanduser(manifest)) if is_path else manifest


@dataclass(frozen=True)
class Series:
    """Folders of one name and key. Number 1 is the first, `--fresh` makes the next."""

    parent: Folder
    stem: str
    first: str
    """Name of number 1; the others are the stem and their number."""

    def newest(self) -> Folder:
        """The one with the highest number; the first if there is none."""
        return self._folder(max(self._numbers(), default=1))

    def newest_with(self, name: str) -> Folder | None:
        """The one with the highest number among those that hold this file."""
        folders = [self._folder(number) for number in sorted(self._numbers(), reverse=True)]
        return next((folder for folder in folders if folder.exists(name)), None)

    def next(self) -> Folder:
        """One that is not there yet."""
        return self._folder(max(self._numbers(), default=0) + 1)

    def _numbers(self) -> list[int]:
        names = self.parent.list()
        tails = [name.removeprefix(f"{self.stem}-") for name in names if name.startswith(f"{self.stem}-")]
        return [1] * (self.first in names) + [int(tail) for tail in tails if tail.isdigit()]

    def _folder(self, number: int) -> Folder:
        return self.parent / (self.first if number == 1 else f"{self.stem}-{number}")


def dataset_series(storage: str, name: str, key: str) -> Series:
    """Datasets of this name and key; the first has no number."""
    return Series(open_folder(storage) / "datasets", f"{name}-{key}", first=f"{name}-{key}")


def run_series(storage: str, name: str, key: str) -> Series:
    """Training runs of this name and key."""
    return Series(open_folder(storage) / "runs", f"{name}-{key}", first=f"{name}-{key}-1")


def sweep_series(storage: str, name: str, key: str) -> Series:
    """Sweeps of this name and key."""
    return Series(open_folder(storage) / "sweeps", f"{name}-{key}", first=f"{name}-{key}-1")


def read_run(folder: Folder) -> Run:
    """What is known of a run; one that never began reads as unfinished."""
    return Run(folder, read_json(folder, EXIT))


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """A JSON document, or an empty one if there is none.

    Raises:
        StorageError: it cannot be read, or is no JSON.
    """
    try:
        document: dict[str, Any] = json.loads(folder.read(name))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StorageError("this file is damaged", where=folder.path(name), hint="use --fresh") from error
    return document


def read_classes(run: Folder) -> tuple[str, ...]:
    """Names of a model's classes in the order of its logits, from `<run>/classes.json`.

    Raises:
        UsageError: there is no such list.
    """
    try:
        found = json.loads(run.read(CLASSES))
    except FileNotFoundError:
        hint = "run `startup-ray train JOB` first"
        raise UsageError("no classes.json beside the model", where=str(run), hint=hint) from None
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise UsageError("not a JSON list of class names", where=run.path(CLASSES))
    return tuple(found)


def put_json(folder: Folder, name: str, document: dict[str, Any]) -> None:
    """Write a document whole, indented for people."""
    folder.put_whole(name, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def read_history(folder: Folder) -> list[dict[str, Any]]:
    """Records of the epochs of a run in order; where attempts overlap, the later one counts."""
    epochs: dict[int, dict[str, Any]] = {}
    for name in folder.list(METRICS):
        for line in folder.read(f"{METRICS}/{name}").splitlines():
            record = json.loads(line)
            epochs[record["epoch"]] = record
    return [epochs[epoch] for epoch in sorted(epochs)]


def _plain(section: Any) -> Any:
    return section.model_dump(mode="json")


def _changed(section: Any) -> Any:
    return section.model_dump(mode="json", exclude_defaults=True)


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
