"""A trained classifier over one split, in parts: statistics back, predictions to storage.

    scorer = open_scorer(task)
    stats = scorer.score(part, stats)   # writes predictions/000000000000-000000004096.parquet

Law: inference batches are fixed ranges of id order, on one CPU thread, so a part gives the same bytes whoever
scores it, and scoring it twice does no harm. TensorFlow is imported only where a model is opened, so that a driver
can hand out tasks without it.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError, first_line
from startup_ray.job import PythonOptions
from startup_ray.jobfile import parse_job
from startup_ray.metrics import Stats
from startup_ray.runs import BEST_MODEL, JOB
from startup_ray.scored import ScoredRows
from startup_ray.storage import Folder, open_folder
from startup_ray.trainers.cache import Rows, open_split
from startup_ray.trainers.lean import load_keras
from startup_ray.usercode import locate

BATCH_ROWS = 256
PART_ROWS = 16 * BATCH_ROWS

PREDICTIONS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("id", "label", "predicted")),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("loss", pa.float64()),
    ]
)
"""`scores` are probabilities in the order of the model's classes; null is what a row does not have."""


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """What is to be scored; the same for all workers."""

    run: Folder
    """Holds the model."""
    classes: tuple[str, ...]
    """The model's, in the order of its logits."""
    dataset: Dataset
    split: str
    predictions: Folder


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A loaded model over an opened split."""

    task: ScoringTask
    logits_of: Callable[[Any], Any]
    """uint8 [N, H, W, C] -> float32 tensor [N, classes]."""
    rows: Rows
    class_of: np.ndarray
    """int64 [dataset classes + 1]: the model's class by the dataset's; the last entry is for no label."""

    def score(self, part: int, stats: Stats) -> Stats:
        """`stats` with the rows of a part; their predictions are stored."""
        return stats.update(self.predict(part))

    def predict(self, part: int) -> ScoredRows:
        """Rows [part * PART_ROWS, (part + 1) * PART_ROWS) of id order; their predictions are stored."""
        start = part * PART_ROWS
        stop = min(start + PART_ROWS, len(self.rows))
        batches = [self.rows.images[i : min(i + BATCH_ROWS, stop)] for i in range(start, stop, BATCH_ROWS)]
        logits = np.concatenate([np.asarray(self.logits_of(batch)) for batch in batches])
        found = ScoredRows.of(self.class_of[self.rows.labels[start:stop]], logits)
        self._store(start, found)
        return found

    def _store(self, start: int, found: ScoredRows) -> None:
        stop, classes = start + len(found.labels), len(self.task.classes)
        names = pa.array([*self.task.dataset.classes, None], pa.string())
        ends = np.arange(0, (len(found.labels) + 1) * classes, classes, dtype=np.int32)
        scores = pa.array(found.scores.astype(np.float32).ravel())
        columns = [
            pa.array(self.rows.ids[start:stop], pa.string()),
            names.take(pa.array(self.rows.labels[start:stop].astype(np.int64) % len(names))),
            pa.array(self.task.classes, pa.string()).take(pa.array(found.predicted, mask=~found.is_finite)),
            pa.ListArray.from_arrays(ends, scores),
            pa.array(found.losses, mask=~found.is_judged),
        ]
        stream = io.BytesIO()
        pq.write_table(pa.table(columns, schema=PREDICTIONS), stream)
        self.task.predictions.put_whole(f"{start:012d}-{stop:012d}.parquet", stream.getvalue())


def part_count(rows: int) -> int:
    """Parts that a split of so many rows has."""
    return -(-rows // PART_ROWS)


def open_scorer(task: ScoringTask) -> Scorer:
    """Load the model and open the split.

    Raises:
        UsageError: no model is there, or it does not fit the images or the classes.
        StorageError: model or dataset cannot be read.
    """
    model = open_model(task.run, task.dataset.image_shape, len(task.classes))
    return make_scorer(task, model, open_split(task.dataset, task.split))


def make_scorer(task: ScoringTask, model: Any, rows: Rows) -> Scorer:
    """A scorer of a model that `open_model` gave over rows that `open_split` gave."""
    index = {name: i for i, name in enumerate(task.classes)}
    class_of = [*(index.get(name, len(index)) for name in task.dataset.classes), -1]
    return Scorer(
        task=task,
        logits_of=_compiled(model, task.dataset.image_shape),
        rows=rows,
        class_of=np.asarray(class_of, np.int64),
    )


def open_model(run: Folder, image_shape: tuple[int, int, int], classes: int) -> Any:
    """The best model of a run, to be used on one CPU thread.

    Raises:
        UsageError: there is none, or it does not take one image of this shape or give so many logits.
    """
    use_one_thread()
    model = load_model(run, BEST_MODEL)
    _require_fit(model, image_shape, classes, run.path(BEST_MODEL))
    return model


def model_at(place: str) -> tuple[Folder, str]:
    """The folder and the name of a `.keras` file, or of the best model in the folder of a run."""
    place = place.rstrip("/")
    parent, _, name = place.rpartition("/") if place.endswith(".keras") else (place, "", BEST_MODEL)
    return open_folder(parent or "."), name


def load_model(folder: Folder, name: str) -> Any:
    """A Keras model from a run's folder; in safe mode, so a file cannot bring code.

    Classes of the user's own come from the module that the run's job names, which is looked for as when it was trained.

    Raises:
        UsageError: there is none, or the file is not one that Keras reads.
    """
    keras: Any = load_keras()
    _import_own(folder)

    place = folder.path(name)
    try:
        data = folder.read(name)
    except FileNotFoundError:
        raise UsageError("no model here", where=place, hint="run `startup-ray train JOB` first") from None
    # Keras reads models from local files only.
    handle, path = tempfile.mkstemp(suffix=".keras")
    try:
        with open(handle, "wb") as stream:
            stream.write(data)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, json.JSONDecodeError) as error:
        reason = str(error).replace(path, name).strip().split("\n", 1)[0]
        raise UsageError(f"Keras cannot load this model: {reason}", where=place) from error
    finally:
        os.unlink(path)


def _import_own(folder: Folder) -> None:
    try:
        job = parse_job(folder.read(JOB).decode(), path=folder.path(JOB))
    except FileNotFoundError:
        return
    if isinstance(job.model, PythonOptions):
        locate(job.model.build).load()


def _require_fit(model: Any, images: tuple[int, int, int], classes: int, place: str) -> None:
    takes = getattr(model, "input_shape", (None, *images))  # a subclassed model takes what it can
    gives = _output_shape(model, images, place)
    if not isinstance(takes, tuple) or not _fits(takes[1:], images):
        hint = "set `ingest.image` to what the model was trained on"
        raise UsageError(f"the model takes images of shape {_shape(takes)}, not {images}", where=place, hint=hint)
    if gives[1:] != (classes,):
        raise UsageError(f"the model gives scores of shape {_shape(gives)}, not ({classes},)", where=place)


def _output_shape(model: Any, images: tuple[int, int, int], place: str) -> tuple[int | None, ...]:
    if hasattr(model, "output_shape"):
        return model.output_shape if isinstance(model.output_shape, tuple) else ()
    try:
        return tuple(model(np.zeros((1, *images), np.float32)).shape)
    except Exception as error:
        raise UsageError(
            f"the model does not take images of shape {images}: {first_line(error)}", where=place
        ) from error


def _fits(wanted: tuple[int | None, ...], given: tuple[int, ...]) -> bool:
    return len(wanted) == len(given) and all(want in (None, have) for want, have in zip(wanted, given, strict=True))


def _shape(found: Any) -> str:
    return str(found[1:]) if isinstance(found, tuple) else str(found)


def _compiled(model: Any, image_shape: tuple[int, int, int]) -> Callable[[Any], Any]:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8)])  # type: ignore[untyped-decorator]
    def logits_of(images: Any) -> Any:
        return tf.cast(model(tf.cast(images, tf.float32), training=False), tf.float32)

    return logits_of  # type: ignore[no-any-return]


def use_one_thread() -> None:
    """Sums over several threads differ in their last bits from those of one."""
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")  # a GPU's last bits are others
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # TensorFlow runs here already, by the caller's settings
        return
