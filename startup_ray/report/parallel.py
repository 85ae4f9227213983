"""Parallel coordinates of a sweep's trials: a line for each, across an axis for each value, to its score.

Positions only: the template draws, with the colours of the page. An axis that a trial does not have leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from startup_ray.report.scales import Scale, of_numbers, scale_of
from startup_ray.report.sweep_data import Sweep, chosen
from startup_ray.report.wording import key_names, metric_name, score, shortened
from startup_ray.tuning.journal import Trial

WIDTH, LEAST_STEP, MOST_STEP, HEIGHT = 915, 72, 170, 250
"""Pixels of the whole, between two axes, and of an axis."""
LEFT, RIGHT, TILTED, TOP, TILTED_TOP, BOTTOM = 12, 46, 30, 30, 58, 14
"""Pixels around; the tilted are for names that do not fit otherwise."""
LETTER = 6.6
"""Pixels of one."""
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Tick:
    y: float
    label: str
    whole: str
    """Where the label is shortened."""


@dataclass(frozen=True, kw_only=True)
class Column:
    x: float
    name: str
    key: str
    ticks: Sequence[Tick]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A trial."""

    kind: str
    """winner, finished, stopped or diverged."""
    share: float = 0.0
    """Of the other finished trials, that it is better than."""
    title: str
    pieces: Sequence[str] = ()
    """Points of a polyline each."""
    dots: Sequence[Point] = ()
    """Points that have no neighbour."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    columns: Sequence[Column]
    lines: Sequence[Line]
    width: float
    height: float
    top: float
    bottom: float
    is_tilted: bool
    """Its names, where they do not fit beside each other."""
    drawn: int
    of: int


def parallel(sweep: Sweep) -> Drawing | None:
    """None where there is no trial to draw, or no axis."""
    drawn = chosen(sweep)
    if not drawn or not sweep.axes:
        return None
    frame = _Frame.of(sweep)
    shares = _shares(sweep.ranked)
    lines = [_line(trial, sweep, shares.get(trial.number, 0.0), frame.points(trial, sweep)) for trial in drawn]
    return Drawing(
        columns=frame.columns(sweep),
        lines=sorted(lines, key=lambda line: (_ORDER.index(line.kind), line.share)),
        width=round(frame.x(frame.count - 1) + RIGHT + TILTED, 1),
        height=frame.top + HEIGHT + BOTTOM,
        top=frame.top,
        bottom=frame.top + HEIGHT,
        is_tilted=frame.is_tilted,
        drawn=len(drawn),
        of=len(sweep.trials),
    )


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where the axes stand."""

    scales: Mapping[str, Scale]
    names: Mapping[str, str]
    scores: Scale | None
    step: float

    @classmethod
    def of(cls, sweep: Sweep) -> _Frame:
        scales, scores = {axis.key: scale_of(axis) for axis in sweep.axes}, _scores(sweep)
        between = max(len(scales) + (scores is not None) - 1, 1)
        step = min(MOST_STEP, max(LEAST_STEP, (WIDTH - LEFT - RIGHT - TILTED) / between))
        return cls(scales=scales, names=key_names(scales), scores=scores, step=step)

    @property
    def count(self) -> int:
        return len(self.scales) + (self.scores is not None)

    @property
    def is_tilted(self) -> bool:
        return any(len(name) * LETTER > self.step - 6 for name in self.names.values())

    @property
    def top(self) -> float:
        return TOP + (TILTED_TOP if self.is_tilted else 0)

    def x(self, column: int) -> float:
        return LEFT + self.step * column

    def columns(self, sweep: Sweep) -> list[Column]:
        room = int((self.step - 12) / LETTER)
        found = [
            _column(self.x(i), self.names[key], key, scale, self.top, room=room)
            for i, (key, scale) in enumerate(self.scales.items())
        ]
        if self.scores:
            metric = sweep.measure.metric
            found.append(_column(self.x(len(found)), metric_name(metric), metric, self.scores, self.top, room=12))
        return found

    def points(self, trial: Trial, sweep: Sweep) -> list[Point | None]:
        """From the first axis to the scores."""
        values = [(trial.values.get(key), scale) for key, scale in self.scales.items()]
        values += [(_end(trial, sweep), self.scores)] if self.scores else []
        return [_place(value, scale, self.x(i), self.top) for i, (value, scale) in enumerate(values)]


_ORDER = ("stopped", "diverged", "finished", "winner")
"""The later are drawn over the earlier."""


def _scores(sweep: Sweep) -> Scale | None:
    """Of trials that have finished, the better above; None if none has."""
    found = [value for trial in sweep.ranked if math.isfinite(value := sweep.measure.score(trial) or 0.0)]
    if not found:
        return None
    scale = of_numbers(min(found), max(found), is_turned=sweep.measure.mode == "min")
    ends = sorted({min(found), (min(found) + max(found)) / 2, max(found)})
    return Scale(at=scale.at, ticks=[(scale.at(end) or 0.0, score(end)) for end in ends])


def _end(trial: Trial, sweep: Sweep) -> float | None:
    """Only a training that nobody has stopped has a score that compares."""
    return sweep.measure.score(trial) if trial.state == "finished" else None


def _shares(order: Sequence[Trial]) -> Mapping[int, float]:
    return {trial.number: 1 - i / max(len(order) - 1, 1) for i, trial in enumerate(order)}


def _column(x: float, name: str, key: str, scale: Scale, top: float, *, room: int) -> Column:
    ticks = [Tick(y=_y(part, top), label=shortened(label, room), whole=label) for part, label in scale.ticks]
    return Column(x=round(x, 1), name=shortened(name, 22), key=key, ticks=ticks)


def _place(value: Any, scale: Scale, x: float, top: float) -> Point | None:
    part = scale.at(value)
    return None if part is None else (round(x, 1), _y(part, top))


def _y(part: float, top: float) -> float:
    return round(top + (1 - part) * HEIGHT, 1)


def _line(trial: Trial, sweep: Sweep, share: float, points: Iterable[Point | None]) -> Line:
    pieces = _pieces(points)
    kind = {"finished": "finished", "stopped": "stopped"}.get(trial.state, "diverged")
    reached = score(sweep.measure.score(trial))
    return Line(
        kind="winner" if trial.number == sweep.best.get("trial") else kind,
        share=round(share, 3),
        title=f"trial {trial.number}, {trial.state}: {reached}",
        pieces=[" ".join(f"{x:g},{y:g}" for x, y in piece) for piece in pieces if len(piece) > 1],
        dots=[piece[0] for piece in pieces if len(piece) == 1],
    )


def _pieces(points: Iterable[Point | None]) -> list[list[Point]]:
    """Neighbours that are there."""
    found: list[list[Point]] = [[]]
    for point in points:
        if point is not None:
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]
