"""What stands in the parentheses of an axis, `0, 1, step=0.1` or `adam, sgd` -> the fields of the axis."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

from startup_ray.space import MOST, Kind, same

FORMS: dict[str, str] = {
    "uniform": "uniform(a, b) or uniform(a, b, step=s)",
    "loguniform": "loguniform(a, b) or loguniform(a, b, num=n)",
    "int": "int(a, b) or int(a, b, step=s)",
    "logint": "logint(a, b) or logint(a, b, num=n)",
    "choice": "choice(v1, v2, ...)",
}
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


class _Loader(yaml.SafeLoader):
    """YAML, but 1e-4 is a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_NUMBER.pattern})$"), list("-+.0123456789"))


def read_choices(inside: str) -> tuple[Any, ...]:
    """Of `choice`: two or more, none twice."""
    values = read_values(inside)
    if len(values) < 2:
        raise ValueError(f"choice needs two values or more, not {len(values)}")
    for i, value in enumerate(values):
        if any(same(value, other) for other in values[:i]):
            raise ValueError(f"{json.dumps(value)} stands twice in choice")
    return tuple(values)


def read_values(text: str) -> list[Any]:
    """YAML flow values, and only such as JSON can hold."""
    try:
        values: list[Any] = _Loader(f"[{text}]").get_single_data()
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except yaml.YAMLError:
        raise ValueError(f"the values {text!r} are not YAML") from None
    except (TypeError, ValueError):
        raise ValueError(f"the values {text!r} are not all null, true, numbers, texts, lists or mappings") from None
    return values


def read_range(kind: Kind, inside: str) -> dict[str, Any]:
    """Of the other kinds: the ends, and the step or the number of values."""
    words = [word.strip() for word in inside.split(",")] if inside.strip() else []
    plain = [word for word in words if "=" not in word]
    named = [tuple(part.strip() for part in word.split("=", 1)) for word in words if "=" in word]
    option, whole = "num" if kind in ("loguniform", "logint") else "step", kind in ("int", "logint")
    for name, _ in named:
        if name != option:
            raise ValueError(f"{kind} knows no {name!r}: write {FORMS[kind]}")
    if len(named) > 1:
        raise ValueError(f"{option} stands twice")
    if len(plain) != 2:
        raise ValueError(f"{kind} takes two numbers, not {len(plain)}: write {FORMS[kind]}")
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
