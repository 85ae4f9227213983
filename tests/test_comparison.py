from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray import runs
from startup_ray.cli import main
from startup_ray.comparison import compare_runs, verdict
from startup_ray.errors import UsageError
from startup_ray.storage import Folder

ROWS = 1_000
CLASSES = ("cat", "dog", "owl")


def run_in(
    folder: Folder,
    right: np.ndarray,
    *,
    classes: tuple[str, ...] = CLASSES,
    split: str = "test",
    digest: str = "sha256:1",
    first: int = 0,
) -> Folder:
    """An evaluated run that is right in these of the rows from `first` on, and says the next class in the others."""
    labels = np.arange(first, first + len(right)) % 3
    predicted = np.where(right, labels, (labels + 1) % 3)
    table = {
        "id": [f"{i:05d}" for i in range(first, first + len(right))],
        "label": [CLASSES[i] for i in labels],
        "predicted": [CLASSES[i] for i in predicted],
        "loss": np.zeros(len(right)),
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(table), stream)
    evaluation = folder / "evaluations" / "0a1b2c3d"
    evaluation.put_whole("predictions/0.parquet", stream.getvalue())
    document = {"classes": list(classes), "split": split, "dataset_digest": digest, "average": "macro"}
    runs.put_json(evaluation, runs.EVALUATION, document)
    runs.put_json(folder, runs.EXIT, {"run": str(folder)})
    folder.put_whole(runs.JOB, b"name: made\n")
    return folder


def right(share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found: np.ndarray = rng.permutation(ROWS) < share * ROWS
    return found


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_the_better_run_is_told_whichever_stands_first(storage: Folder) -> None:
    one, other = run_in(storage / "a-1", right(0.8, 1)), run_in(storage / "b-1", right(0.9, 2))
    there, back = compare_runs(one, other), compare_runs(other, one)
    assert there["rows"] == ROWS
    assert there["p_value"] < 1e-6
    assert there["differences"]["accuracy"]["value"] == pytest.approx(0.1)
    assert verdict(there).startswith("b-1 better than a-1 by 10.0 points of accuracy, interval ")
    assert verdict(back).startswith("b-1 better than a-1 by 10.0 points of accuracy, interval ")
    low, high = (float(word) for word in verdict(back).rsplit(" ", 3)[1::2])
    assert 0 < low < 10 < high < 20


def test_a_difference_that_may_be_luck_is_called_so(storage: Folder) -> None:
    one, other = run_in(storage / "a-1", right(0.8, 1)), run_in(storage / "b-1", right(0.805, 2))
    document = compare_runs(one, other)
    assert not document["differences"]["accuracy"]["significant"]
    assert verdict(document).startswith("no sure difference between a-1 and b-1: b-1 ahead by 0.5 points of accuracy")


def test_classes_are_matched_by_name_and_rows_by_id(storage: Folder) -> None:
    one = run_in(storage / "a-1", np.ones(100, bool))
    other = run_in(storage / "b-1", np.ones(100, bool), classes=("owl", "dog", "cat"), first=50)
    document = compare_runs(one, other)
    assert document["rows"] == 50
    assert document["only_one_right"] == document["only_other_right"] == 0
    assert document["p_value"] == 1.0


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"split": "val"}, "different splits: test and val"),
        ({"digest": "sha256:2"}, "different datasets: sha256:1 and sha256:2"),
        ({"first": 5_000}, "no scored row in common"),
    ],
)
def test_what_cannot_be_compared_is_told(storage: Folder, other: dict[str, object], told: str) -> None:
    run_in(storage / "a-1", np.ones(9, bool))
    run_in(storage / "b-1", np.ones(9, bool), **other)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=told):
        compare_runs(storage / "a-1", storage / "b-1")


def test_a_run_that_is_not_evaluated_names_the_way_out(storage: Folder) -> None:
    run_in(storage / "a-1", np.ones(9, bool))
    with pytest.raises(UsageError, match="not evaluated yet") as told:
        compare_runs(storage / "a-1", storage / "b-1")
    assert told.value.hint == "`startup-ray evaluate JOB` does that"


def test_the_command_prints_a_verdict_and_a_table(storage: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    run_in(storage / "a-1", right(0.8, 1))
    run_in(storage / "b-1", right(0.9, 2))
    assert main(["compare", storage.path("a-1"), storage.path("b-1")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("b-1 better than a-1 by 10.0 points of accuracy")
    assert "1,000 rows, rightly classified" in out
    assert any(line.startswith("f1 ") and line.endswith("*") for line in out.splitlines())
    assert main(["compare", storage.path("a-1"), storage.path("c-1")]) == 2
