"""What needs no model: the document from statistics, and the errors told before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.evaluate import evaluate, judge, preflight
from startup_ray.gates import parse_gate
from startup_ray.job import EvaluationOptions
from startup_ray.metrics import Stats
from startup_ray.runs import read_classes
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    images, labels = patterns(12)
    return make_dataset(Folder(str(tmp_path / "dataset")), images, labels, ["train"] * 6 + ["test"] * 6)


def run_with(tmp_path: Path, classes: str) -> Folder:
    run = Folder(str(tmp_path / "run"))
    run.put_whole("classes.json", classes.encode())
    return run


def test_images_of_many_sizes_are_not_judged(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="a size of its own"):
        preflight(replace(dataset, image_shape=(0, 0, 1)), ("0", "1"), EvaluationOptions())


def test_the_document_follows_from_the_statistics() -> None:
    confusion = np.array([[8, 2], [1, 9]])
    document = judge(
        Stats(confusion=confusion), ("cat", "dog"), [parse_gate("recall[cat] > 0.8")], average="macro", seed=1
    )
    assert document["rows"]["total"] == document["rows"]["scored"] == 20
    assert document["metrics"]["accuracy"] == 0.85
    assert document["metrics"]["f1"] == document["metrics"]["f1_macro"]
    assert document["per_class"][0] == {
        "class": "cat",
        "precision": 8 / 9,
        "recall": 0.8,
        "f1": 16 / 19,
        "support": 10,
        "roc_auc": None,  # statistics without scores
        "average_precision": None,
    }
    assert document["confusion"] == [[8, 2], [1, 9]]
    assert document["gates"] == [{"gate": "recall[cat] > 0.8", "value": 0.8, "passed": False}]
    low, high = document["intervals"]["accuracy"]
    assert low < 0.85 < high
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_without_a_scored_row_the_document_is_still_json() -> None:
    document = judge(Stats.empty(2), ("cat", "dog"), [parse_gate("f1 > 0")], average="macro", seed=1)
    assert document["metrics"]["f1"] is None
    assert document["intervals"] == {}
    assert not document["gates"][0]["passed"]
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize(
    ("classes", "split", "gate", "told"),
    [
        ('["0", "1", "2"]', "val", "f1 > 0", "no images in the 'val' split"),
        ('["0", "1", "2"]', "exam", "f1 > 0", "its splits: train 6, val 0, test 6"),
        ('["0", "1", "2"]', "test", "recall[9] > 0", "'9' is no class"),
        ('["cat", "dog"]', "test", "f1 > 0", "no class in common"),
        ('{"0": 1}', "test", "f1 > 0", "not a JSON list of class names"),
        ("[0, 1]", "test", "f1 > 0", "not a JSON list of class names"),
        ("\u00ff{", "test", "f1 > 0", "not a JSON list of class names"),
    ],
)
def test_what_cannot_be_judged_is_told_first(
    tmp_path: Path, dataset: Dataset, classes: str, split: str, gate: str, told: str
) -> None:
    run, folder = run_with(tmp_path, classes), Folder(str(tmp_path / "evaluation"))
    with pytest.raises(UsageError) as caught:
        evaluate(run, dataset, folder, options=EvaluationOptions(gates=(gate,)), split=split)
    assert told in str(caught.value)
    assert not folder.exists()


def test_a_run_without_classes_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="startup-ray train"):
        read_classes(Folder(str(tmp_path)))
