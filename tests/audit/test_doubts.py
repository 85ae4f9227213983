from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from startup_ray import runs
from startup_ray.audit.doubts import doubted, evaluated, newest_judge, read_doubts, thresholds
from startup_ray.storage import Folder
from tests.audit.made import defective, judge, put


def test_a_row_is_doubted_if_the_likeliest_class_above_its_threshold_is_another() -> None:
    limits = np.array([0.6, 0.9, np.inf])
    scores = np.array([[0.65, 0.35, 0], [0.2, 0.8, 0], [0.05, 0.95, 0], [0.6, 0.4, 0], [0, 0, 1.0]])
    labels = np.array([1, 0, 0, 0, 0])
    likely, is_doubted = doubted(labels, scores, limits)
    assert is_doubted.tolist() == [True, False, True, False, False]
    assert likely[is_doubted].tolist() == [0, 1]


def test_a_label_that_the_model_finds_likeliest_is_not_doubted() -> None:
    _, is_doubted = doubted(np.array([0, 2]), np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]]), np.array([0.9, 0.3, 0.9]))
    assert is_doubted.tolist() == [False, True]


def test_thresholds_are_means_over_the_rows_of_a_class_however_they_are_parted(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    rows = [("a", [0.8, 0.2, 0]), ("b", [0.5, 0.5, 0]), ("a", [0.6, 0.4, 0]), (None, [0, 1, 0]), ("a", [np.nan, 0, 0])]
    for i, (label, scores) in enumerate(rows):
        table = {"id": [str(i)], "label": pa.array([label], pa.string()), "scores": [scores]}
        put(folder, f"{i}.parquet", pa.table(table))
    np.testing.assert_allclose(thresholds(folder, ("a", "b", "c")), [0.7, 0.5, np.inf])


def test_the_surest_first_with_what_was_judged(tmp_path: Path) -> None:
    storage = Folder(str(tmp_path))
    dataset = defective(storage / "datasets" / "made")
    found = read_doubts(runs.read_run(judge(storage, dataset)), dataset)
    assert [(doubt.id, doubt.label, doubt.likely) for doubt in found.rows] == [
        ("00000", "cat", "dog"),
        ("00003", "dog", "cat"),
        ("00006", "cat", "dog"),
    ]
    assert found.counts == {"test": 3}
    assert found.judged == {"test": dataset.splits["test"]}
    assert found.has_learnt


def test_the_judge_is_the_newest_run_evaluated_on_this_very_dataset(tmp_path: Path) -> None:
    storage = Folder(str(tmp_path))
    dataset = defective(storage / "datasets" / "made")
    assert newest_judge(dataset) is None
    ours = judge(storage, dataset, "ours-1")
    for name, file, document in (
        ("other-1", runs.DATASET, {"dataset": str(dataset.folder), "digest": "another"}),
        ("stopped-1", runs.EXIT, {}),
        ("gan-1", runs.EXIT, {"kind": "gan"}),
        ("not-judged-1", "evaluations/0a1b/evaluation.json", {"dataset_digest": "another", "split": "test"}),
    ):
        runs.put_json(judge(storage, dataset, name), file, document)
    found = newest_judge(dataset)
    assert found is not None
    assert found.folder == ours
    assert list(evaluated(found, dataset)) == ["test"]
