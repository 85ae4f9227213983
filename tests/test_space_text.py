from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.space import Axis, Condition, SpaceError
from startup_ray.space_text import parse_axis, parse_space


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


FINITE = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.9g}"))
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


@given(st.text(st.sampled_from("uniformlogtchce(),=[]{}'\"1.e- <>!:#&*")) | st.text())
def test_any_text_is_an_axis_or_an_error(text: str) -> None:
    for form in (text, f"choice({text})", f"uniform({text})", f"uniform(0, 1){text}", f"choice(1, 2) if a == {text}"):
        try:
            assert axis(form).text == form
        except SpaceError as error:
            assert error.key == "k"  # noqa: PT017
