"""A model that is named scores what was not scored yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from startup_ray import runs
from startup_ray.audit import audit
from startup_ray.audit.doubts import read_doubts
from startup_ray.runs import Run
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns

pytestmark = pytest.mark.ray  # it imports TensorFlow


def test_planted_wrong_labels_are_found_in_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))
    images, labels = patterns(120)
    planted = range(0, 120, 8)
    given: list[str | None] = [str((int(label) + 1) % 3) if i in planted else label for i, label in enumerate(labels)]
    dataset = make_dataset(Folder(str(tmp_path / "dataset")), images, given, ["train", "train", "test"] * 40)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    kernel = np.zeros((8, 8, 3), np.float32)
    for label in range(3):
        kernel[2 * label : 2 * label + 2, :, label] = 1 / 300
    model.layers[-1].set_weights([kernel.reshape(-1, 3), np.zeros(3)])
    run = Folder(str(tmp_path / "run"))
    runs.put_json(run, "classes.json", ["0", "1", "2"])  # type: ignore[arg-type]
    runs.put_json(run, runs.DATASET, {"dataset": str(dataset.folder), "digest": dataset.digest})
    model.save(run.path("model.keras"))

    found = read_doubts(Run(run, {}), dataset, scores_rest=True)
    assert {doubt.id for doubt in found.rows} <= {f"{i:05d}" for i in planted}
    assert len(found.rows) >= len(planted) - 2  # a class that is never wrong has a threshold that few reach
    assert all(doubt.likely == labels[int(doubt.id)] for doubt in found.rows)
    assert found.judged == {"train": 80, "test": 40}
    document = audit(dataset, str(tmp_path / "page.html"), run=Run(run, {}))
    assert "it doubts too few of them" in (tmp_path / "page.html").read_text()
    assert run.list("evaluations") == []  # what is scored here is kept nowhere
    assert document["run"] == str(run)
