from __future__ import annotations

import json
import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from startup_ray.job import CnnOptions, GanOptions, TrainingOptions
from startup_ray.space import (
    MOST,
    Axis,
    Condition,
    SpaceError,
    around,
    grid,
    parse_axis,
    parse_space,
    probes,
    set_values,
    size,
)
from startup_ray.sweep_options import SweepOptions, metric_of, mode_of


def axis(text: str) -> Axis:
    return parse_axis("k", text)


def refused(space: dict[Any, Any]) -> SpaceError:
    with pytest.raises(SpaceError) as caught:
        parse_space(space)
    return caught.value


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("uniform(0, 1)", None),
        ("uniform(0, 0.3, step=0.1)", (0.0, 0.1, 0.2, 0.3)),
        ("uniform(-1, 1, step=0.8)", (-1.0, -0.2, 0.6)),
        ("loguniform(1e-4, 1e-2)", None),
        ("loguniform(1e-4, 1e-2, num=3)", (1e-4, 1e-3, 1e-2)),
        ("loguniform(1e-4,1e-2,num = 4)", (1e-4, 0.000464159, 0.00215443, 1e-2)),
        ("int(1, 4)", (1, 2, 3, 4)),
        (" int ( 1e1 , 20, step=4) ", (10, 14, 18)),
        ("logint(8, 128)", None),
        ("logint(8, 128, num=5)", (8, 16, 32, 64, 128)),
        ("logint(1, 3, num=9)", (1, 2, 3)),
        ("choice(adam, sgd)", ("adam", "sgd")),
        ("choice([32], [32, 64])", ([32], [32, 64])),
        ("choice(null, 1.0)", (None, 1.0)),
        ("choice(true, 1)", (True, 1)),
        ("choice(1e-4, .5, '1e-4')", (1e-4, 0.5, "1e-4")),
        ("choice({a: 1e-4}, {})", ({"a": 1e-4}, {})),
        ("choice('a) if b, ((', \"c\\\")\", d(e), it's)", ("a) if b, ((", 'c")', "d(e)", "it's")),
    ],
)
def test_a_value_is_read_with_its_points(text: str, points: tuple[Any, ...] | None) -> None:
    found = axis(text)
    assert found.points() == points
    assert [type(point) for point in found.points() or ()] == [type(point) for point in points or ()]
    assert (found.key, found.text, found.when) == ("k", text, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("unifrom(0, 1)", "unknown function 'unifrom', did you mean 'uniform'?"),
        ("zzz(0, 1)", "unknown function 'zzz', write uniform(a, b), loguniform"),
        ("0.1", "cannot read '0.1': write uniform(a, b)"),
        ("", "cannot read ''"),
        ("uniform(0)", "uniform takes two numbers, not 1: write uniform(a, b) or uniform(a, b, step=s)"),
        ("uniform()", "takes two numbers, not 0"),
        ("uniform(0, 1, 0.1)", "takes two numbers, not 3"),
        ("uniform(0, 1, num=3)", "uniform knows no 'num': write uniform(a, b) or"),
        ("loguniform(1, 2, step=1)", "loguniform knows no 'step'"),
        ("uniform(0, 1, step=.1, step=.2)", "step stands twice"),
        ("uniform(a, 1)", "'a' is not a number"),
        ("uniform(0, inf)", "'inf' is not a number"),
        ("uniform(0, 1e999)", "'1e999' is not a number"),
        ("uniform(0, __import__('os'))", "\"__import__('os')\" is not a number"),
        ("uniform(-1e308, 1e308)", "wider than numbers go"),
        ("uniform(1, 0)", "the first number must be below the second: uniform(1, 0)"),
        ("int(3, 3)", "the first number must be below the second: int(3, 3)"),
        ("int(0.5, 3)", "0.5 is not a whole number"),
        ("int(1, 3, step=0.5)", "0.5 is not a whole number"),
        ("int(1, 3, step=3)", "step must be above 0 and at most the range, 2, not 3"),
        ("uniform(0, 1, step=0)", "step must be above 0"),
        ("uniform(0, 1, step=-1)", "step must be above 0"),
        ("uniform(0, 1, step=1e-9)", "more than 100000 values: take a larger step"),
        ("int(0, 1e9)", "more than 100000 values"),
        ("loguniform(0, 1)", "loguniform must begin above 0, not at 0"),
        ("logint(-3, 8)", "logint must begin above 0, not at -3"),
        ("loguniform(1, 2, num=1)", "num must be from 2 to 100000, not 1"),
        ("loguniform(1, 2, num=2.5)", "2.5 is not a whole number"),
        ("loguniform(1, 2, num=1e9)", "num must be from 2 to 100000"),
        ("choice()", "choice needs two values or more, not 0"),
        ("choice(adam)", "choice needs two values or more, not 1"),
        ("choice(1, 2, 1.0)", "1.0 stands twice in choice"),
        ("choice([8], [8])", "[8] stands twice in choice"),
        ("choice({a b: [}, 1)", "is not closed"),
        ("choice(a b: c: d, 1)", "are not YAML"),
        ("choice(2020-01-01, 1)", "are not all null, true, numbers, texts, lists or mappings"),
        ("choice(.inf, 1)", "are not all null"),
        ('choice("\\ud800", 1)', "are not all null"),  # no file can hold it
        ("choice(!!python/object/apply:os.system [true], 1)", "are not YAML"),
        ("loguniform(1e-4", "within {...} put the whole value in quotes, because there YAML splits it at its commas"),
        ("choice([1, 2)", "is not closed"),
        ("uniform(0, 1) or so", "cannot read 'or so': a condition is `if KEY == VALUE`"),
        ("uniform(0, 1) if a = 1", "a condition is `if KEY == VALUE`"),
        ("uniform(0, 1) if a in b", "`in` needs values in parentheses, not 'b'"),
        ("uniform(0, 1) if a == b, c", "== needs one value, not 'b, c'"),
        ("uniform(0, 1) if a < b", "< compares numbers, and 'b' is none"),
        ([32, "a"], 'a list is not read as choices: write choice(32, "a")'),
        (3, "3 is no range and no choice"),
        (True, "True is no range and no choice"),
        (None, "has no value: write uniform(a, b)"),
    ],
)
def test_a_value_that_does_not_hold_tells_the_way_out(text: Any, told: str) -> None:
    error = refused({"training.x": text})
    assert (error.key, told in error.message) == ("training.x", True), error.message


@pytest.mark.parametrize("key", ["", ".", "a.", "a..b", " a", 3, None])
def test_a_key_is_dotted(key: Any) -> None:
    assert "not a dotted key" in refused({key: "uniform(0, 1)"}).message


def test_a_mapping_that_yaml_has_split_at_a_comma_tells_to_quote() -> None:
    error = refused({"training.learning_rate": "loguniform(1e-4", "1e-2)": None})
    assert error.key == "training.learning_rate"
    assert "put the whole value in quotes" in error.message


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


def test_the_key_of_a_condition_may_hold_any_word() -> None:
    assert axis("choice((a), 2) if training.in == 3").when == Condition(key="training.in", op="==", value=3)


@pytest.mark.parametrize(
    ("space", "key", "told"),
    [
        ({"a": "choice(1, 2) if bb == 1", "b": "int(1, 2)"}, "a", "not searched; did you mean 'b'?"),
        ({"a": "choice(1, 2) if x.y == 1"}, "a", "a condition is on another key of the space"),
        ({"a": "choice(1, 2) if a == 1"}, "a", "leads back to itself: a -> a"),
        (
            {"c": "choice(1, 2) if a == 1", "a": "choice(1, 2) if b == 1", "b": "choice(1, 2) if a == 1"},
            "c",
            "leads back to itself: c -> a -> b -> a",
        ),
        ({"a": "choice(1, 2) if b == 3", "b": "int(1, 2)"}, "a", "never holds, for b is int(1, 2)"),
        ({"a": "choice(1, 2) if b > 2", "b": "uniform(1, 2)"}, "a", "never holds"),
        ({"a": "choice(1, 2) if b == 1.5", "b": "logint(1, 2)"}, "a", "never holds"),
        ({"a": "choice(1, {})", "a.b": "int(1, 2)"}, "a.b", "lies within a, which is searched as a whole"),
    ],
)
def test_a_space_that_does_not_fit_together(space: dict[str, str], key: str, told: str) -> None:
    error = refused(space)
    assert error.key == key
    assert told in error.message


def test_what_a_condition_is_on_comes_first_and_all_else_stays() -> None:
    space = {"a": "int(1, 2)", "b": "int(1, 2) if d == 1", "c": "int(1, 2)", "d": "int(1, 2) if e == 1"}
    assert [axis.key for axis in parse_space(space | {"e": "int(1, 2)"})] == ["a", "e", "d", "b", "c"]


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


WORDS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=5)
PLAIN = st.none() | st.booleans() | st.integers(-99, 99) | FINITE | WORDS
VALUE = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(WORDS, PLAIN, max_size=2)


@given(st.lists(VALUE, min_size=2, max_size=5, unique_by=json.dumps))
def test_choices_are_what_was_written(values: list[Any]) -> None:
    flow = ", ".join(json.dumps(value) for value in values)
    try:
        found = axis(f"choice({flow}) if other == {json.dumps(values[0])}")
    except SpaceError as error:
        assert "stands twice" in error.message  # noqa: PT017 - 0 and 0.0
        return
    assert found.choices == tuple(values)
    assert found.when == Condition(key="other", op="==", value=values[0])


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


@given(st.text(st.sampled_from("uniformlogtchce(),=[]{}'\"1.e- <>!:#&*")) | st.text())
def test_any_text_is_an_axis_or_an_error(text: str) -> None:
    for form in (text, f"choice({text})", f"uniform({text})", f"uniform(0, 1){text}", f"choice(1, 2) if a == {text}"):
        try:
            assert axis(form).text == form
        except SpaceError as error:
            assert error.key == "k"  # noqa: PT017


def test_what_is_searched_for_follows_from_the_model() -> None:
    options = SweepOptions(space={"model.dense": "int(1, 2)"})
    training = TrainingOptions(monitor="val/accuracy")
    assert metric_of(options, CnnOptions(), training) == "val/accuracy"
    assert metric_of(options, GanOptions(), training) == "val/fid"
    assert metric_of(options.model_copy(update={"metric": "train/loss"}), CnnOptions(), training) == "train/loss"


@pytest.mark.parametrize(
    ("metric", "mode"), [("val/loss", "min"), ("train/loss", "min"), ("val/fid", "min"), ("val/f1", "max")]
)
def test_the_way_to_search_follows_from_the_metric(metric: str, mode: str) -> None:
    options = SweepOptions(space={"model.dense": "int(1, 2)"})
    assert mode_of(options, metric) == mode
    assert mode_of(options.model_copy(update={"mode": "max"}), metric) == "max"
