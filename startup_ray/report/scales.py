"""Where the values of a searched axis lie on a line: by distance, by ratio, or a place for each choice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from startup_ray.report.wording import setting
from startup_ray.space import Axis

MAX_TICKS = 9
"""Of choices."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where values of an axis lie, in [0, 1] from below; None for those that have no place."""

    at: Callable[[Any], float | None]
    ticks: Sequence[tuple[float, str]] = field(default_factory=list)


def scale_of(axis: Axis) -> Scale:
    """Of a logarithmic axis by ratio, of choices at even distances."""
    if axis.kind == "choice":
        return _of_choices(axis.choices)
    return of_numbers(axis.low, axis.high, is_log=axis.kind in ("loguniform", "logint"))


def _of_choices(choices: Sequence[Any]) -> Scale:
    order = {_text(choice): i for i, choice in enumerate(choices)}
    places = [(i + 0.5) / len(choices) for i in range(len(choices))]
    every = -(-len(choices) // MAX_TICKS)
    ticks = [(places[i], setting(choice)) for i, choice in enumerate(choices) if i % every == 0]

    def at(value: Any) -> float | None:
        found = order.get(_text(value))
        return None if found is None else places[found]

    return Scale(at=at, ticks=ticks)


def of_numbers(low: float, high: float, *, is_log: bool = False, is_turned: bool = False) -> Scale:
    """Of a range.

    Args:
        low: its lower end.
        high: its upper end.
        is_log: by ratio.
        is_turned: less is above.
    """
    form: Callable[[float], float] = math.log10 if is_log else float
    start, width = form(low), form(high) - form(low)

    def at(value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if is_log and value <= 0:
            return None
        part = min(max((form(value) - start) / width, 0.0), 1.0) if width else 0.5
        return 1 - part if is_turned else part

    shown = [(at(tick) or 0.0, setting(tick)) for tick in _marks(low, high, is_log=is_log)]
    return Scale(at=at, ticks=shown)


def _marks(low: float, high: float, *, is_log: bool) -> list[float]:
    if is_log:
        decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        tens = [10.0**power for power in decades]
        return tens if len(tens) > 1 else [low, high]
    whole = isinstance(low, int) and isinstance(high, int)
    middle = (low + high) // 2 if whole else (low + high) / 2
    return sorted({low, middle, high})


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
