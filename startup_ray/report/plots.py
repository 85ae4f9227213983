"""Curves as inline SVG whose colours are CSS variables, so that one drawing serves light, dark and print."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

# matplotlib knows no CSS variables: these stand for them until the text is written.
_INK, _RULE, _BAD = "#010203", "#010204", "#010208"
_SERIES = ("#010205", "#010206", "#010207")
_CSS = {
    _INK: "currentColor",
    _RULE: "var(--rule)",
    _BAD: "var(--bad)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(_SERIES, 1)},
}
_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "text.parse_math": False,  # a $ in a name is a $
    "svg.hashsalt": "startup_ray",  # the same values give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _RULE,
}
MAX_MARKERS = 40
MANY = 60
"""Trials from which their curves are thin, so that they do not become one area."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Curves with what is written about them."""

    title: str
    series: Mapping[str, str]
    """As in `curves`."""
    note: str = ""


def curves(history: Sequence[Mapping[str, Any]], series: Mapping[str, str], *, title: str, key: str) -> str:
    """Lines over epochs as an `<svg>` element; empty if no record has a value.

    Args:
        history: records of epochs, in order (see `runs.read_history`).
        series: what to draw: keys of a record by their labels; at most three.
        title: what a screen reader says.
        key: letters and digits that no other drawing of the page has; ids begin with it.
    """
    lines = {label: _points(history, name) for label, name in series.items()}
    if not any(lines.values()):
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for colour, (label, points) in zip(_SERIES, lines.items(), strict=False):
            if points:
                axes.plot(
                    *zip(*points, strict=True), color=colour, label=label, linewidth=1.8, **_marks(points, history)
                )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.grid(axis="y", linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.4, columnspacing=1.6)
        return _written(figure, title, key)


def reliability(table: Sequence[Mapping[str, float]], *, title: str, key: str) -> str:
    """Accuracy over confidence as an `<svg>` element, with the diagonal on which both are equal.

    Args:
        table: `Calibration.table()`: rows, confidence and accuracy of each bin.
        title: what a screen reader says.
        key: as in `curves`.
    """
    rows = sum(part["rows"] for part in table)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1.2)
        sizes = [12 + 180 * part["rows"] / rows for part in table]
        places = [part["confidence"] for part in table], [part["accuracy"] for part in table]
        axes.plot(*places, color=_SERIES[0], linewidth=1.2)
        axes.scatter(*places, s=sizes, color=_SERIES[0], zorder=3)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(-0.03, 1.06))
        axes.grid(linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        return _written(figure, title, key)


def trial_curves(
    lines: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, label: str, may_be_log: bool, title: str, key: str
) -> str:
    """What trials have reached over epochs as an `<svg>` element; empty if none has reached anything.

    Args:
        lines: what each is (`stopped`, `diverged`, `finished` or `winner`), and its epochs and values.
        label: of the values.
        may_be_log: where they span orders of magnitude, as losses do.
        title: as in `curves`, and `key` too.
    """
    shown = sorted((line for line in lines if line[1]), key=lambda line: list(_TRIALS).index(line[0]))
    if not shown:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 3.5), layout="constrained")
        axes = figure.add_subplot()
        thin = {"linewidth": 0.7, "alpha": 0.45} if len(shown) > MANY else {}
        for kind, points in shown:
            look = _TRIALS[kind] | (thin if kind != "winner" else {})
            axes.plot(*zip(*points, strict=True), markevery=[len(points) - 1], **look)
        ends = [value for _, points in shown for _, value in points]
        if may_be_log and min(ends) > 0 and max(ends) > 50 * min(ends):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        axes.grid(axis="y", linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, which="both")
        return _written(figure, title, key)


_TRIALS: dict[str, dict[str, Any]] = {
    "stopped": {"color": _INK, "linewidth": 0.8, "alpha": 0.5, "marker": "o", "markersize": 2.5},
    "diverged": {"color": _BAD, "linewidth": 0.9, "alpha": 0.8, "marker": "x", "markersize": 5},
    "finished": {"color": _SERIES[0], "linewidth": 1.3, "alpha": 0.85, "marker": "o", "markersize": 3},
    "winner": {"color": _SERIES[1], "linewidth": 2.6, "marker": "o", "markersize": 5},
}
"""How each kind of trial is drawn; the later over the earlier."""


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(record["epoch"], record[name]) for record in history if record.get(name) is not None]


def _marks(points: Sequence[Any], history: Sequence[Any]) -> dict[str, Any]:
    """One point makes no line, and where epochs were left out, a line alone hides that."""
    is_sparse = len(points) < len(history) and len(points) <= MAX_MARKERS
    return {"marker": "o", "markersize": 4} if len(points) == 1 or is_sparse else {}


def _written(figure: Figure, title: str, key: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), title, key)


def _inline(text: str, title: str, key: str) -> str:
    """A drawing that can stand in a page beside others: no prologue, ids of its own, colours by name."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{key}-", body)
    body = re.sub(
        r'(<svg [^>]*?)width="[^"]*" ?', r"\1", re.sub(r'(<svg [^>]*?)height="[^"]*" ?', r"\1", body, count=1), count=1
    )
    for colour, name in _CSS.items():
        body = body.replace(colour, name)
    # A font list written by matplotlib names fonts of the machine that drew.
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
