"""The drawings of a sweep: where each trial's line and each score lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from startup_ray.report import write_report
from startup_ray.report.board import board
from startup_ray.report.parallel import parallel
from startup_ray.report.scales import scale_of
from startup_ray.report.sweep_data import Sweep, read_sweep
from startup_ray.space_text import parse_axis
from startup_ray.storage import Folder
from tests.report.made_sweep import confirmed, finished, searched, sweep_in, trial_in
from tests.report.tags import Tags


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def sweep(storage: Folder) -> Folder:
    """Searched, neither confirmed nor finished."""
    folder = sweep_in(storage / "sweep")
    searched(folder)
    return folder


def tags_of(storage: Folder, *found: Folder) -> Tags:
    return Tags(Path(write_report(found, storage.path("out/report.html"))).read_text("utf-8"))


def known(folder: Folder) -> Sweep:
    found = read_sweep(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_few_trials_of_one_axis_are_drawn(storage: Folder, count: int) -> None:
    folder = sweep_in(storage / "sweep", space={"model.dense": "logint(16, 256)"}, confirm=0)
    for i in range(count):
        trial_in(folder, i, {"model.dense": 16}, [0.5, 0.6, 0.7])
    finished(folder)
    drawing = parallel(known(folder))
    assert drawing is not None
    assert [column.key for column in drawing.columns] == ["model.dense", "val/f1"]
    assert f"Trial 0 is the best of {count}" in tags_of(storage, folder).words


def test_less_is_better_for_a_gan(storage: Folder) -> None:
    folder = sweep_in(
        storage / "sweep", space={"training.learning_rate": "loguniform(1e-4, 1e-1)"}, model={"kind": "gan"}
    )
    for i, score in enumerate((40.0, 4.0, 400.0)):
        trial_in(folder, i, {"training.learning_rate": 0.01 / 10**i}, [500, score], metric="val/fid")
    confirmed(folder, {1: (5.0, 6.0, 5.5)})
    finished(folder)
    found = known(folder)
    drawing = parallel(found)
    assert drawing is not None
    ends = {line.title: float(line.pieces[0].rpartition(",")[2]) for line in drawing.lines}
    assert ends["trial 1, finished: 4.0000"] < ends["trial 0, finished: 40.00"] < ends["trial 2, finished: 400.00"]
    assert found.best["trial"] == 1
    assert "less is better" in tags_of(storage, folder).words


def test_an_axis_that_a_trial_does_not_have_leaves_a_gap(sweep: Folder) -> None:
    drawing = parallel(known(sweep))
    assert drawing is not None
    lines = {line.title.split(",")[0]: line for line in drawing.lines}
    assert [len(lines["trial 0"].pieces), len(lines["trial 1"].pieces), len(lines["trial 2"].pieces)] == [1, 2, 2]
    assert lines["trial 3"].kind == "diverged"
    assert lines["trial 1"].kind == "winner"
    assert drawing.lines[-1] is lines["trial 1"]
    assert len(lines["trial 1"].pieces[1].split()) == len(lines["trial 2"].pieces[1].split()) + 1  # to its score


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("uniform(0, 2)", {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.0, "1": None, None: None}),
        ("loguniform(1e-4, 1)", {1e-4: 0.0, 1e-2: 0.5, 1.0: 1.0, 0: None, float("nan"): None}),
        ("choice(null, adam)", {None: 0.25, "adam": 0.75, "other": None}),
    ],
)
def test_each_axis_has_a_scale_of_its_own(text: str, places: dict[Any, float | None]) -> None:
    scale = scale_of(parse_axis("model.x", text))
    for value, place in places.items():
        assert scale.at(value) == (None if place is None else pytest.approx(place)), value


def test_choices_may_be_lists(sweep: Folder) -> None:
    scale = scale_of(parse_axis("model.filters", "choice([8], [16, 32])"))
    assert [scale.at([8]), scale.at([16, 32]), scale.at([4])] == [0.25, 0.75, None]
    assert [label for _, label in scale.ticks] == ["[8]", "[16, 32]"]


def test_one_training_that_went_wrong_does_not_press_the_others_together(sweep: Folder) -> None:
    confirmed(sweep, {1: (0.94, 0.945, 0.95), 0: (0.94, 0.93, 0.01)})
    rows = board(known(sweep))
    strip = rows[1]["strip"]
    assert [is_inside for _, is_inside in strip["seeds"]] == [True, True, False]
    assert strip["seeds"][0][0] - strip["seeds"][1][0] > 5
