from __future__ import annotations

import json
import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from startup_ray.space import MOST, Axis, SpaceError, around, grid, probes, set_values, size
from startup_ray.space_text import parse_axis, parse_space


def axis(text: str) -> Axis:
    return parse_axis("k", text)


def test_an_error_of_a_space_survives_processes() -> None:
    error = pickle.loads(pickle.dumps(SpaceError("a.b", "no")))  # noqa: S301 - our own
    assert (error.key, error.message, str(error)) == ("a.b", "no", "a.b: no")


@pytest.mark.parametrize(
    ("condition", "values", "holds"),
    [
        ("a == sgd", {"a": "sgd"}, True),
        ("a == sgd", {"a": "adam"}, False),
        ("a != sgd", {"a": "adam"}, True),
        ("a != sgd", {}, False),
        ("a == true", {"a": True}, True),
        ("a == 1", {"a": True}, False),
        ("a == [32, 64]", {"a": [32, 64]}, True),
        ("a == null", {"a": None}, True),
        ("a == null", {}, False),
        ("a >= 1e-3", {"a": 1e-3}, True),
        ("a>1e-3", {"a": 1e-3}, False),
        ("a < 3", {"a": None}, False),
        ("a <= 3", {"a": "3"}, False),
        ("a in (adam, 1, [2])", {"a": "adam"}, True),
        ("a in(adam, 1, [2])", {"a": [2]}, True),
        ("a in (adam, 1, [2])", {"a": True}, False),
    ],
)
def test_a_condition(condition: str, values: dict[str, Any], holds: bool) -> None:
    when = axis(f"uniform(0, 1) if {condition}").when
    assert when is not None
    assert when.key == "a"
    assert when.holds(values) is holds


def test_a_grid_leaves_out_what_is_not_active() -> None:
    axes = parse_space(
        {
            "momentum": "choice(0.5, 0.9) if optimizer == sgd",
            "nesterov": "choice(true, false) if momentum != 0.5",
            "optimizer": "choice(adam, sgd)",
        }
    )
    assert list(grid(axes)) == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": 0.5},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": False},
    ]
    assert size(axes) == 4


def test_a_grid_needs_values() -> None:
    axes = parse_space({"a": "int(1, 2)", "b": "uniform(0, 1)"})
    with pytest.raises(
        SpaceError, match="b: a grid needs values, and this range has no end of them: give it a step or"
    ):
        grid(axes)
    assert size(axes) is None


def test_counting_stops() -> None:
    assert size(parse_space({"a": "int(1, 1000)", "b": "int(1, 100)"})) == MOST
    assert size(parse_space(dict.fromkeys("abcdefgh", "int(1, 10000)"))) is None


def test_probes_are_the_ends_and_what_shows_that_a_range_is_of_fractions() -> None:
    assert probes(axis("int(1, 9, step=3)")) == (1, 4, 7)
    assert probes(axis("int(1, 2)")) == (1, 2)
    assert probes(axis("logint(1, 64)")) == (1, 64)
    assert probes(axis("choice(c, b, a)")) == ("c", "b", "a")
    low, between, high = probes(axis("uniform(32, 128)"))
    assert (low, high, between % 1 > 0) == (32, 128, True)


def test_an_axis_is_tried_where_it_is_active() -> None:
    axes = parse_space({"a": "int(1, 9)", "b": "choice(x, y) if a >= 5", "c": "int(1, 2) if b == y", "d": "int(1, 2)"})
    assert around(axes, "c", 2) == {"a": 5, "b": "y", "c": 2, "d": 1}
    assert around(axes, "d", 2) == {"a": 1, "d": 2}


def test_values_are_set_in_a_copy() -> None:
    plain = {"model": {"dense": 1, "filters": [1]}, "training": None}
    values = {"model.filters": [2], "training.augment.flip": True}
    found = set_values(plain, values)
    assert found == {"model": {"dense": 1, "filters": [2]}, "training": {"augment": {"flip": True}}}
    found["model"]["filters"].append(3)
    assert (plain["model"], values["model.filters"]) == ({"dense": 1, "filters": [1]}, [2])
    with pytest.raises(SpaceError, match=r"model\.dense\.x: model\.dense is a value, not a section"):
        set_values(plain, {"model.dense.x": 1})


FINITE = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.9g}"))
POSITIVE = st.floats(1e-9, 1e9)


@st.composite
def ranges(draw: st.DrawFn) -> str:
    """The text of a range with steps."""
    kind = draw(st.sampled_from(["uniform", "loguniform", "int", "logint"]))
    number = {"uniform": FINITE, "loguniform": POSITIVE, "int": st.integers(-500, 500), "logint": st.integers(1, 5000)}
    ends: list[Any] = draw(st.lists(number[kind], min_size=2, max_size=2, unique=True))
    low, high = sorted(ends)
    if kind.startswith("log"):
        return f"{kind}({low!r}, {high!r}, num={draw(st.integers(2, 50))})"
    if kind == "int":
        return f"int({low}, {high}, step={draw(st.integers(1, high - low))})"
    step = (high - low) / draw(st.floats(1, 50))
    assume(0 < step <= high - low)
    return f"uniform({low!r}, {high!r}, step={step!r})"


@given(ranges())
def test_points_rise_and_lie_within_their_range(text: str) -> None:
    found = axis(text)
    points = found.points()
    assert points is not None
    assert points[0] == found.low
    assert all(one < other for one, other in pairwise(points))
    assert points[-1] == found.high if found.num else found.low < points[-1] <= found.high
    assert {type(point) for point in points} == {float if "uniform" in found.kind else int}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=5))
def test_no_grid_has_a_combination_twice_or_leaves_one_out(shape: list[tuple[int, int, int]]) -> None:
    space = {}
    for i, (width, on, value) in enumerate(shape):
        when = f" if k{on} == {value}" if on < i and value <= 1 + shape[on][0] else ""
        space[f"k{i}"] = f"int(1, {1 + width}){when}"
    axes = parse_space(dict(reversed(space.items())))
    rows = list(grid(axes))
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows) == size(axes)
    for row in rows:
        assert {axis.key for axis in axes if axis.when is None or axis.when.holds(row)} == set(row)
    for one in axes:
        assert all(around(axes, one.key, value) in rows for value in probes(one))
