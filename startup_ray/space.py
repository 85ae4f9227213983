"""The search space of a sweep as values: each dotted key of the job with what it may be.

    for values in grid(axes): ...                       # {"training.learning_rate": 1e-4, ...}
    job = set_values(job, values)

How a space is written, and what reads it, is `space_text.py`.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

Kind = Literal["uniform", "loguniform", "int", "logint", "choice"]
Op = Literal["==", "!=", "<", "<=", ">", ">=", "in"]

MOST = 100_000
"""More values than anybody tries one by one: steps that make more are refused, and no grid is counted further."""
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


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
            return any(same(found, value) for value in self.value)
        if self.op in ("==", "!="):
            return same(found, self.value) == (self.op == "==")
        return is_number(found) and bool(ORDERS[self.op](found, self.value))


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


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every combination once, the last axis changing fastest; axes whose condition does not hold are left out.

    Raises:
        SpaceError: at once, if an axis is a range without steps.
    """
    points = {axis.key: axis.points() for axis in axes}
    for key, found in points.items():
        if found is None:
            way_out = "give it a step or num, or take another searcher"
            raise SpaceError(key, f"a grid needs values, and this range has no end of them: {way_out}")
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
        wanted[when.key] = satisfying(named[when.key], when)[0]
        when = named[when.key].when
    values: dict[str, Any] = {}
    for axis in axes:
        if axis.when is None or axis.when.holds(values):
            values[axis.key] = wanted[axis.key] if axis.key in wanted else probes(axis)[0]
    return values


def satisfying(axis: Axis, when: Condition) -> list[Any]:
    """Values of the axis for which a condition on it holds; of a range without steps those that show it has some."""
    found = axis.points()
    if found is None:
        named = when.value if when.op == "in" else (when.value,)
        inside = [x for x in named if is_number(x) and axis.low <= x <= axis.high]
        found = (axis.low, axis.high, *(x for x in inside if x % 1 == 0 or axis.kind != "logint"))
    return [value for value in found if when.holds({axis.key: value})]


def same(one: Any, other: Any) -> bool:
    """Equal as values of a job: 1 is 1.0, but true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def is_number(value: Any) -> bool:
    """True and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


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
