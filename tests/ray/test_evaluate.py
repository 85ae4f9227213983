"""The model over the rows: in this process, by Ray Data, and what is told when the two do not fit."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray import runs
from startup_ray.dataset import Dataset, read_dataset
from startup_ray.errors import UsageError
from startup_ray.evaluate import evaluate
from startup_ray.job import EvaluationOptions
from startup_ray.progress import Part, Progress
from startup_ray.runs import put_json
from startup_ray.storage import Folder
from startup_ray.trainers.scoring import PART_ROWS, PREDICTIONS
from tests.fakes import make_dataset, patterns

CLASSES = ("0", "1", "2")
IN_PROCESS = EvaluationOptions()
BY_RAY = EvaluationOptions(ray_above_rows=0)
ACTOR = "_ScoringActor"
"""In the name of a process that scores."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))


def dataset_of(tmp_path: Path, rows: int, size: int = 8) -> Dataset:
    """A test split in which each tenth row has no label, and each eleventh one that no model knows."""
    images, names = patterns(rows, size=size)
    labels = [None if i % 10 == 0 else "unheard" if i % 11 == 0 else name for i, name in enumerate(names)]
    return make_dataset(Folder(str(tmp_path / "dataset")), images, labels, ["test"] * rows)


def run_of(
    tmp_path: Path, *, size: int = 8, classes: Sequence[str] = CLASSES, outputs: int = 3, fill: float = 1.0
) -> Folder:
    """A run whose model looks for the bright band of each class in `patterns`."""
    import keras

    model = keras.Sequential([keras.Input((size, size, 1)), keras.layers.Flatten(), keras.layers.Dense(outputs)])
    kernel = np.zeros((size, size, outputs), np.float32)
    for label in range(outputs):
        kernel[label * (size // 3) : (label + 1) * (size // 3), :, label] = fill / 3_000
    model.layers[-1].set_weights([kernel.reshape(-1, outputs), np.zeros(outputs)])
    run = Folder(str(tmp_path / "run"))
    put_json(run, "classes.json", list(classes))  # type: ignore[arg-type]
    model.save(run.path("model.keras"))
    return run


def read_predictions(folder: Folder) -> pa.Table:
    return pa.concat_tables([pq.read_table(folder.path(f"predictions/{name}")) for name in folder.list("predictions")])


def test_the_document_is_that_of_the_stored_predictions(tmp_path: Path) -> None:
    dataset, run, folder = dataset_of(tmp_path, 300), run_of(tmp_path), Folder(str(tmp_path / "evaluation"))
    seen: list[Progress] = []
    document = evaluate(run, dataset, folder, options=IN_PROCESS, seed=7, on_progress=seen.append)

    assert document["rows"] == {
        "total": 300, "scored": 245, "unlabeled": 30, "unknown_class": 25, "bad_scores": 0, "corrupt": 0,
    }  # fmt: skip
    assert seen == [Part(300, 300, "rows")]
    assert document["metrics"]["accuracy"] > 0.9
    table = read_predictions(folder)
    assert table.schema == PREDICTIONS
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [f"{i:05d}" for i in range(300)]
    assert rows[0]["label"] is None
    assert rows[11]["label"] == "unheard"
    scored = [row for row in rows if row["loss"] is not None]
    cells = [[sum(r["label"] == a and r["predicted"] == b for r in scored) for b in CLASSES] for a in CLASSES]
    assert cells == document["confusion"]
    assert np.mean([row["loss"] for row in scored]) == pytest.approx(document["metrics"]["log_loss"], abs=1e-12)
    for row in rows:
        assert sum(row["scores"]) == pytest.approx(1, abs=1e-6)
        assert row["predicted"] == CLASSES[int(np.argmax(row["scores"]))]


def test_logits_that_are_no_numbers_are_counted_not_scored(tmp_path: Path) -> None:
    dataset, run = dataset_of(tmp_path, 30), run_of(tmp_path, fill=float("nan"))
    folder = Folder(str(tmp_path / "evaluation"))
    document = evaluate(run, dataset, folder, options=EvaluationOptions(gates=("f1 > 0",)), seed=7)
    assert document["rows"]["scored"] == 0
    assert document["rows"]["bad_scores"] == 25
    assert document["metrics"]["f1"] is None
    assert document["gates"] == [{"gate": "f1 > 0", "value": None, "passed": False}]
    assert read_predictions(folder)["predicted"].null_count == 30


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    dataset, run = dataset_of(tmp_path, 100), run_of(tmp_path, classes=("2", "1", "0"))
    folder = Folder(str(tmp_path / "evaluation"))
    confusion = np.array(evaluate(run, dataset, folder, options=IN_PROCESS)["confusion"])
    turned = Folder(str(tmp_path / "turned"))
    put_json(run, "classes.json", list(CLASSES))  # type: ignore[arg-type]
    straight = np.array(evaluate(run, dataset, turned, options=IN_PROCESS)["confusion"])
    assert confusion.tolist() == straight[::-1].tolist()  # the model's columns stay, the labels find other rows


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"size": 9}, "takes images of shape (9, 9, 1), not (8, 8, 1)"),
        ({"outputs": 2}, "gives scores of shape (2,), not (3,)"),
        ({"file": b""}, "Keras cannot load this model"),
        ({"file": b"no zip at all"}, "Keras cannot load this model"),
        ({"file": None}, "startup-ray train"),
    ],
)
def test_a_model_that_does_not_fit_is_told(tmp_path: Path, run: dict[str, Any], told: str) -> None:
    made = run_of(tmp_path, **{key: value for key, value in run.items() if key != "file"})
    if "file" in run:
        made.delete("model.keras") if run["file"] is None else made.put_whole("model.keras", run["file"])
    folder = Folder(str(tmp_path / "evaluation"))
    with pytest.raises(UsageError) as caught:
        evaluate(made, dataset_of(tmp_path, 10), folder, options=IN_PROCESS)
    assert told in str(caught.value)
    assert "model.keras" in caught.value.where
    assert not folder.exists()


def test_a_model_file_cannot_bring_code(tmp_path: Path) -> None:
    import keras

    run = run_of(tmp_path)
    bomb = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Lambda(lambda images: images), keras.layers.Flatten()]
    )
    bomb.save(run.path("model.keras"))
    with pytest.raises(UsageError, match=r"[Ll]ambda"):
        evaluate(run, dataset_of(tmp_path, 10), Folder(str(tmp_path / "evaluation")), options=IN_PROCESS)


class Elsewhere:
    """Evaluates in a process of its own, which imports this module: so it does not import Keras at the top."""

    def evaluate(self, run: Folder, dataset: Dataset, folder: Folder, options: EvaluationOptions) -> bool:
        """Whether it brought TensorFlow into this process."""
        evaluate(run, dataset, folder, options=options, seed=7)
        return "tensorflow" in sys.modules


def files(folder: Folder) -> dict[str, bytes]:
    names = ["evaluation.json", *(f"predictions/{name}" for name in folder.list("predictions"))]
    return {name: folder.read(name) for name in names}


@pytest.mark.timeout(300)  # four processes load TensorFlow
def test_ray_and_one_process_write_the_same_bytes(tmp_path: Path, ray_session: None) -> None:
    import ray

    rows = 2 * PART_ROWS + 77
    dataset, run, folder = dataset_of(tmp_path, rows), run_of(tmp_path), Folder(str(tmp_path / "evaluation"))
    driver: Any = ray.remote(num_cpus=0)(Elsewhere).remote()
    assert not ray.get(driver.evaluate.remote(run, dataset, folder, BY_RAY)), "the driver must not pay for TensorFlow"
    by_ray = files(folder)
    folder.delete("")
    assert ray.get(driver.evaluate.remote(run, dataset, folder, IN_PROCESS))
    ray.kill(driver)
    assert len(by_ray) == 4
    assert by_ray == files(folder)


@pytest.mark.timeout(300)
def test_a_dead_actor_loses_no_row_and_counts_none_twice(tmp_path: Path, ray_session: None) -> None:
    dataset, run = dataset_of(tmp_path, 8 * PART_ROWS), run_of(tmp_path)
    folder, alone = Folder(str(tmp_path / "killed")), Folder(str(tmp_path / "alone"))
    killed: list[int] = []

    def strike() -> None:
        """Once the first predictions are stored."""
        while not folder.list("predictions"):
            time.sleep(0.01)
        found = [p for p in psutil.process_iter(["cmdline"]) if ACTOR in " ".join(p.info["cmdline"] or [])]
        os.kill(found[0].pid, signal.SIGKILL)
        killed.append(found[0].pid)

    with ThreadPoolExecutor(1) as pool:
        blow = pool.submit(strike)
        document = evaluate(run, dataset, folder, options=BY_RAY)
        blow.result(timeout=10)
    assert killed
    assert document["rows"]["total"] == 8 * PART_ROWS
    evaluate(run, dataset, alone, options=IN_PROCESS.model_copy(update={"ray_above_rows": 10**6}))
    names = folder.list("predictions")
    assert len(names) == 8
    for name in names:
        assert folder.read(f"predictions/{name}") == alone.read(f"predictions/{name}")
    theirs, ours = (runs.read_json(place, "evaluation.json") for place in (folder, alone))
    for place in ("evaluation", "predictions"):
        del theirs[place], ours[place]
    assert theirs == ours


def test_an_error_on_a_worker_is_the_same_error(tmp_path: Path, ray_session: None) -> None:
    dataset, run = dataset_of(tmp_path, 10), run_of(tmp_path)
    run.delete("model.keras")
    with pytest.raises(UsageError) as caught:
        evaluate(run, read_dataset(dataset.folder), Folder(str(tmp_path / "evaluation")), options=BY_RAY)
    assert caught.value.message == "no model here"
    assert caught.value.hint == "run `startup-ray train JOB` first"
