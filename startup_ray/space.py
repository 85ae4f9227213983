"""The search space of a sweep: each dotted key of the job with what it may be.

    axes = parse_space({"training.learning_rate": "loguniform(1e-4, 1e-2)", "model.dense": "choice(64, 128)"})
    for values in grid(axes): ...                       # {"training.learning_rate": 1e-4, ...}

    uniform(a, b)   loguniform(a, b)   int(a, b)   logint(a, b)     ranges, ends included
    uniform(a, b, step=s)   int(a, b, step=s)                       a, a + s, a + 2s, ... up to b
    loguniform(a, b, num=n)   logint(a, b, num=n)                   n values of equal ratio
    choice(v1, v2, ...)                                             YAML values: choice(null, [32, 64], adam)
    ... if KEY == VALUE   (!= < <= > >=)   ... if KEY in (v1, v2)   searched only where another key is so

A grammar of its own; nothing of a job file is ever evaluated as code.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import yaml

Kind = Literal["uniform", "loguniform", "int", "logint", "choice"]
Op = Literal["==", "!=", "<", "<=", ">", ">=", "in"]

MOST = 100_000
"""More values than anybody tries one by one: steps that make more are refused, and no grid is counted further."""
_FORMS: dict[str, str] = {
    "uniform": "uniform(a, b) or uniform(a, b, step=s)",
    "loguniform": "loguniform(a, b) or loguniform(a, b, num=n)",
    "int": "int(a, b) or int(a, b, step=s)",
    "logint": "logint(a, b) or logint(a, b, num=n)",
    "choice": "choice(v1, v2, ...)",
}
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_HEAD = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*\(")
_TOKEN = re.compile(r"""(?<=[(\[{,:\s=])(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*")|.""", re.DOTALL)
_WHEN = re.compile(
    r"\s*if\s+(?P<key>\S+?)(?:\s*(?P<op>==|!=|<=|>=|<|>)|\s+(?P<within>in)\b)\s*(?P<value>\S.*?)\s*", re.DOTALL
)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
QUOTES = "within {...} put the whole value in quotes, because there YAML splits it at its commas"
"""What to do about a value that has lost its end."""


class SpaceError(ValueError):
    """What is wrong with one key of a space."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What another axis must be, so that this one is searched at all."""

    key: str
    op: Op
    value: Any
    """A value of that axis; for `in` a tuple of them."""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it does for the values of the active axes; never if its own axis is not among them."""
        if self.key not in values:
            return False
        found = values[self.key]
        if self.op == "in":
            return any(_same(found, value) for value in self.value)
        if self.op in ("==", "!="):
            return _same(found, self.value) == (self.op == "==")
        return _is_number(found) and bool(_ORDERS[self.op](found, self.value))


@dataclass(frozen=True, kw_only=True)
class Axis:
    key: str
    """Dotted key of the job file."""
    kind: Kind
    low: float = 0.0
    """Of ranges; int for the kinds of integers."""
    high: float = 0.0
    """Of ranges, included."""
    step: float | None = None
    """Of `uniform` and `int`: values are low + i * step."""
    num: int | None = None
    """Of `loguniform` and `logint`: that many values of equal ratio, ends included."""
    choices: tuple[Any, ...] = ()
    """Of `choice`."""
    when: Condition | None = None
    text: str = ""
    """As it is written in the job file."""

    def points(self) -> tuple[Any, ...] | None:
        """All values, in order, each once; None for a range without steps.

        `int` has a step of 1 if none is given. Points of equal ratio have 6 significant digits between the ends.
        """
        if self.kind == "choice":
            return self.choices
        if self.num is not None:
            return self._geometric(self.num)
        step = 1 if self.kind == "int" and self.step is None else self.step
        return None if step is None else self._even(step)

    def _even(self, step: float) -> tuple[float, ...]:
        if self.kind == "int":
            return tuple(range(int(self.low), int(self.high) + 1, int(step)))
        steps = (self.high - self.low) / step + 1e-9  # 0.3 / 0.1 is a little less than 3
        return self._unique([float(f"{self.low + i * step:.12g}") for i in range(int(steps) + 1)])

    def _geometric(self, num: int) -> tuple[float, ...]:
        start, width = math.log(self.low), math.log(self.high) - math.log(self.low)
        inner = [math.exp(start + width * i / (num - 1)) for i in range(1, num - 1)]
        whole = self.kind == "logint"
        return self._unique([self.low, *(round(x) if whole else float(f"{x:.6g}") for x in inner), self.high])

    def _unique(self, values: Sequence[float]) -> tuple[float, ...]:
        """Each once and none outside, where rounding went over an end."""
        return tuple(dict.fromkeys(min(max(value, self.low), self.high) for value in values))


class _Loader(yaml.SafeLoader):
    """YAML, but 1e-4 is a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_NUMBER.pattern})$"), list("-+.0123456789"))


def parse_space(space: Mapping[str, str]) -> tuple[Axis, ...]:
    """Read a space; the axis of a condition comes before what depends on it, all else stays as it is written.

    Raises:
        SpaceError: for the first key that does not hold, with what was probably meant.
    """
    axes = {key: parse_axis(key, text) for key, text in space.items()}
    for axis in axes.values():
        parts = axis.key.split(".")
        for outer in (".".join(parts[:i]) for i in range(1, len(parts))):
            if outer in axes:
                raise SpaceError(axis.key, f"lies within {outer}, which is searched as a whole: keep one of the two")
        if axis.when is not None:
            _check_condition(axis.key, axis.when, axes)
    return _in_order(axes)


def parse_axis(key: object, text: object) -> Axis:
    """Read one entry; whether the key of its condition exists only `parse_space` can know.

    Raises:
        SpaceError: it does not hold.
    """
    try:
        if not isinstance(key, str) or not all(re.fullmatch(r"\S(.*\S)?", part) for part in key.split(".")):
            raise ValueError("not a dotted key of the job file, for example training.learning_rate")
        return _read(key, text if isinstance(text, str) else _require_text(text))
    except ValueError as error:
        raise SpaceError(str(key), str(error)) from None


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every combination once, the last axis changing fastest; axes whose condition does not hold are left out.

    Raises:
        SpaceError: at once, if an axis is a range without steps.
    """
    points = {axis.key: axis.points() for axis in axes}
    for key, found in points.items():
        if found is None:
            raise SpaceError(
                key,
                "a grid needs values, and this range has no end of them: give it a step or num, or "
                "take another searcher",
            )
    return _walk(axes, {key: found or () for key, found in points.items()}, {})


def size(axes: Sequence[Axis]) -> int | None:
    """Number of combinations; None if there is no end of them, or more than MOST: counting stops there."""
    if any(axis.points() is None for axis in axes):
        return None
    found = sum(1 for _ in islice(grid(axes), MOST + 1))
    return found if found <= MOST else None


def set_values(plain: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of nested mappings with dotted keys set; sections that are missing or null are made.

    Raises:
        SpaceError: a key leads through what is no section.
    """
    result = copy.deepcopy(dict(plain))
    for key, value in values.items():
        *parents, last = key.split(".")
        section: Any = result
        for i, part in enumerate(parents):
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise SpaceError(key, f"{'.'.join(parents[: i + 1])} is a value, not a section")
        section[last] = copy.deepcopy(value)
    return result


def probes(axis: Axis) -> tuple[Any, ...]:
    """Values that tell whether a job takes all of an axis: all choices, or the ends of a range and one between."""
    if axis.kind == "choice":
        return axis.choices
    found = axis.points()
    if found is not None:
        return tuple(dict.fromkeys((*found[:2], found[-1])))
    between = axis.low + 0.381966 * (axis.high - axis.low)  # no whole number, even where both ends are
    return (axis.low, axis.high) if axis.kind == "logint" else (axis.low, between, axis.high)


def around(axes: Sequence[Axis], key: str, value: Any) -> dict[str, Any]:
    """A combination in which one axis is active and has that value: what it depends on is chosen so, all else first."""
    named = {axis.key: axis for axis in axes}
    wanted, when = {key: value}, named[key].when
    while when is not None:
        wanted[when.key] = _satisfying(named[when.key], when)[0]
        when = named[when.key].when
    values: dict[str, Any] = {}
    for axis in axes:
        if axis.when is None or axis.when.holds(values):
            values[axis.key] = wanted[axis.key] if axis.key in wanted else probes(axis)[0]
    return values


def _walk(
    axes: Sequence[Axis], points: Mapping[str, Sequence[Any]], values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if not axes:
        yield dict(values)
        return
    axis, *rest = axes
    if axis.when is not None and not axis.when.holds(values):
        yield from _walk(rest, points, values)
        return
    for value in points[axis.key]:
        yield from _walk(rest, points, values | {axis.key: value})


def _require_text(value: object) -> str:
    if value is None:
        raise ValueError(f"has no value: write {_forms()}")
    if isinstance(value, list):
        inside = json.dumps(value, default=str)[1:-1]
        raise ValueError(f"a list is not read as choices: write choice({inside})")
    raise ValueError(f"{value!r} is no range and no choice: write {_forms()}, or set it in its own section")


def _read(key: str, text: str) -> Axis:
    head = _HEAD.match(text)
    if head is None:
        raise ValueError(f"cannot read {text!r}: write {_forms()}")
    name = head["name"]
    if name not in _FORMS:
        close = difflib.get_close_matches(name, _FORMS, 1)
        way_out = f"did you mean {close[0]!r}?" if close else f"write {_forms()}"
        raise ValueError(f"unknown function {name!r}, {way_out}")
    end = _closing(text, head.end() - 1)
    if end is None:
        raise ValueError(f"the parenthesis of {text!r} is not closed; {QUOTES}")
    kind = next(kind for kind in get_args(Kind) if kind == name)
    inside = text[head.end() : end]
    fields = {"choices": _choices(inside)} if kind == "choice" else _range(kind, inside)
    return Axis(key=key, kind=kind, when=_when(text[end + 1 :]), text=text, **fields)


def _closing(text: str, opening: int) -> int | None:
    """Where the parenthesis is closed; brackets nest, and nothing within quotes counts."""
    depth = 0
    for token in _TOKEN.finditer(text, opening):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth == 0:
            return token.start() if token[0] == ")" else None
    return None


def _choices(inside: str) -> tuple[Any, ...]:
    values = _values(inside)
    if len(values) < 2:
        raise ValueError(f"choice needs two values or more, not {len(values)}")
    for i, value in enumerate(values):
        if any(_same(value, other) for other in values[:i]):
            raise ValueError(f"{json.dumps(value)} stands twice in choice")
    return tuple(values)


def _values(text: str) -> list[Any]:
    """YAML flow values, and only such as JSON can hold."""
    try:
        values: list[Any] = _Loader(f"[{text}]").get_single_data()
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except yaml.YAMLError:
        raise ValueError(f"the values {text!r} are not YAML") from None
    except (TypeError, ValueError):
        raise ValueError(f"the values {text!r} are not all null, true, numbers, texts, lists or mappings") from None
    return values


def _range(kind: Kind, inside: str) -> dict[str, Any]:
    words = [word.strip() for word in inside.split(",")] if inside.strip() else []
    plain = [word for word in words if "=" not in word]
    named = [tuple(part.strip() for part in word.split("=", 1)) for word in words if "=" in word]
    option, whole = "num" if kind in ("loguniform", "logint") else "step", kind in ("int", "logint")
    for name, _ in named:
        if name != option:
            raise ValueError(f"{kind} knows no {name!r}: write {_FORMS[kind]}")
    if len(named) > 1:
        raise ValueError(f"{option} stands twice")
    if len(plain) != 2:
        raise ValueError(f"{kind} takes two numbers, not {len(plain)}: write {_FORMS[kind]}")
    low, high = (_number(word, whole=whole) for word in plain)
    _check_ends(kind, low, high)
    extra = {name: _number(word, whole=whole or option == "num") for name, word in named}
    _check_steps(high - low, extra.get("step", 1 if kind == "int" else None), extra.get("num"))
    return {"low": low, "high": high, **extra}


def _check_ends(kind: Kind, low: float, high: float) -> None:
    if low >= high:
        raise ValueError(f"the first number must be below the second: {kind}({low:g}, {high:g})")
    if kind in ("loguniform", "logint") and low <= 0:
        raise ValueError(f"{kind} must begin above 0, not at {low:g}")
    if not math.isfinite(high - low):
        raise ValueError("the range is wider than numbers go")


def _check_steps(width: float, step: float | None, num: float | None) -> None:
    if step is not None and not 0 < step <= width:
        raise ValueError(f"step must be above 0 and at most the range, {width:g}, not {step:g}")
    if step is not None and width / MOST > step:
        raise ValueError(f"more than {MOST} values: take a larger step, or a range without steps")
    if num is not None and not 2 <= num <= MOST:
        raise ValueError(f"num must be from 2 to {MOST}, not {num}")


def _number(text: str, *, whole: bool) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    if not whole:
        return number
    if not number.is_integer():
        raise ValueError(f"{text} is not a whole number")
    return int(text) if text.lstrip("+-").isdigit() else int(number)


def _when(text: str) -> Condition | None:
    if not text.strip():
        return None
    parts = _WHEN.fullmatch(text)
    if parts is None:
        raise ValueError(f"cannot read {text.strip()!r}: a condition is `if KEY == VALUE` or `if KEY in (v1, v2)`")
    value = parts["value"]
    if parts["within"]:
        if value[0] + value[-1] != "()":
            raise ValueError(f"`in` needs values in parentheses, not {value!r}")
        return Condition(key=parts["key"], op="in", value=tuple(_values(value[1:-1])))
    op = next(op for op in get_args(Op) if op == parts["op"])
    values = _values(value)
    if len(values) != 1:
        raise ValueError(f"{op} needs one value, not {value!r}; several go with `in (v1, v2)`")
    if op in _ORDERS and not _is_number(values[0]):
        raise ValueError(f"{op} compares numbers, and {value!r} is none")
    return Condition(key=parts["key"], op=op, value=values[0])


def _check_condition(key: str, when: Condition, axes: Mapping[str, Axis]) -> None:
    if when.key not in axes:
        close = difflib.get_close_matches(when.key, [name for name in axes if name != key], 1)
        hint = f"did you mean {close[0]!r}?" if close else "a condition is on another key of the space"
        raise SpaceError(key, f"its condition is on {when.key!r}, which is not searched; {hint}")
    if not _satisfying(axes[when.key], when):
        raise SpaceError(key, f"its condition never holds, for {when.key} is {axes[when.key].text}")


def _satisfying(axis: Axis, when: Condition) -> list[Any]:
    """Values of the axis for which a condition on it holds; of a range without steps those that show it has some."""
    found = axis.points()
    if found is None:
        named = when.value if when.op == "in" else (when.value,)
        inside = [x for x in named if _is_number(x) and axis.low <= x <= axis.high]
        found = (axis.low, axis.high, *(x for x in inside if x % 1 == 0 or axis.kind != "logint"))
    return [value for value in found if when.holds({axis.key: value})]


def _in_order(axes: Mapping[str, Axis]) -> tuple[Axis, ...]:
    placed: dict[str, Axis] = {}
    for axis in axes.values():
        chain = [axis]
        while (when := chain[-1].when) is not None and when.key not in placed:
            chain.append(axes[when.key])
            if chain[-1] in chain[:-1]:
                round_trip = " -> ".join(link.key for link in chain)
                raise SpaceError(axis.key, f"its condition leads back to itself: {round_trip}")
        for link in reversed(chain):
            placed.setdefault(link.key, link)
    return tuple(placed.values())


def _same(one: Any, other: Any) -> bool:
    """Equal as values of a job: 1 is 1.0, but true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _forms() -> str:
    return "uniform(a, b), loguniform(a, b), int(a, b), logint(a, b) or choice(v1, v2, ...)"
