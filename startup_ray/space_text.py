"""The text of a search space -> axes.

    axes = parse_space({"training.learning_rate": "loguniform(1e-4, 1e-2)", "model.dense": "choice(64, 128)"})

    uniform(a, b)   loguniform(a, b)   int(a, b)   logint(a, b)     ranges, ends included
    uniform(a, b, step=s)   int(a, b, step=s)                       a, a + s, a + 2s, ... up to b
    loguniform(a, b, num=n)   logint(a, b, num=n)                   n values of equal ratio
    choice(v1, v2, ...)                                             YAML values: choice(null, [32, 64], adam)
    ... if KEY == VALUE   (!= < <= > >=)   ... if KEY in (v1, v2)   searched only where another key is so

A grammar of its own; nothing of a job file is ever evaluated as code.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import get_args

from startup_ray.space import ORDERS, Axis, Condition, Kind, Op, SpaceError, is_number, satisfying
from startup_ray.space_arguments import FORMS, read_choices, read_range, read_values

_HEAD = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*\(")
_TOKEN = re.compile(r"""(?<=[(\[{,:\s=])(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*")|.""", re.DOTALL)
_WHEN = re.compile(
    r"\s*if\s+(?P<key>\S+?)(?:\s*(?P<op>==|!=|<=|>=|<|>)|\s+(?P<within>in)\b)\s*(?P<value>\S.*?)\s*", re.DOTALL
)
QUOTES = "within {...} put the whole value in quotes, because there YAML splits it at its commas"
"""What to do about a value that has lost its end."""


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
    if name not in FORMS:
        close = difflib.get_close_matches(name, FORMS, 1)
        way_out = f"did you mean {close[0]!r}?" if close else f"write {_forms()}"
        raise ValueError(f"unknown function {name!r}, {way_out}")
    end = _closing(text, head.end() - 1)
    if end is None:
        raise ValueError(f"the parenthesis of {text!r} is not closed; {QUOTES}")
    kind = next(kind for kind in get_args(Kind) if kind == name)
    inside = text[head.end() : end]
    fields = {"choices": read_choices(inside)} if kind == "choice" else read_range(kind, inside)
    return Axis(key=key, kind=kind, when=_when(text[end + 1 :]), text=text, **fields)


def _closing(text: str, opening: int) -> int | None:
    """Where the parenthesis is closed; brackets nest, and nothing within quotes counts."""
    depth = 0
    for token in _TOKEN.finditer(text, opening):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth == 0:
            return token.start() if token[0] == ")" else None
    return None


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
        return Condition(key=parts["key"], op="in", value=tuple(read_values(value[1:-1])))
    op = next(op for op in get_args(Op) if op == parts["op"])
    values = read_values(value)
    if len(values) != 1:
        raise ValueError(f"{op} needs one value, not {value!r}; several go with `in (v1, v2)`")
    if op in ORDERS and not is_number(values[0]):
        raise ValueError(f"{op} compares numbers, and {value!r} is none")
    return Condition(key=parts["key"], op=op, value=values[0])


def _check_condition(key: str, when: Condition, axes: Mapping[str, Axis]) -> None:
    if when.key not in axes:
        close = difflib.get_close_matches(when.key, [name for name in axes if name != key], 1)
        hint = f"did you mean {close[0]!r}?" if close else "a condition is on another key of the space"
        raise SpaceError(key, f"its condition is on {when.key!r}, which is not searched; {hint}")
    if not satisfying(axes[when.key], when):
        raise SpaceError(key, f"its condition never holds, for {when.key} is {axes[when.key].text}")


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


def _forms() -> str:
    return "uniform(a, b), loguniform(a, b), int(a, b), logint(a, b) or choice(v1, v2, ...)"
