"""Images per second as bars, a panel for each case, as an SVG that shows on light and dark pages."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rig.training.case import Case
from rig.training.contestants import CONTESTANTS
from rig.training.results import Results

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "startup_ray",  # the same values give the same bytes
    "font.size": 9,
    "axes.titlesize": 10,
}
LIMIT, OURS, PEER = "#9aa5b1", "#2463c4", "#d9893b"
PANEL = (4.6, 2.6)
"""Inches."""
COLUMNS = 2


def draw(results: Results, path: Path) -> None:
    rows = -(-len(results.cases) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows), layout="constrained", facecolor="white")
        panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for axes, case in zip(panels, results.cases, strict=False):
            _panel(axes, results, case)
        for axes in list(panels)[len(results.cases) :]:
            axes.set_axis_off()
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib leaves blanks at ends of lines.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def _panel(axes: Any, results: Results, case: Case) -> None:
    names = [name for name in CONTESTANTS if results.rates(case, name)]
    rates = [results.rates(case, name) for name in names]
    middles = [statistics.median(values) for values in rates]
    spreads = [
        [middle - min(values) for middle, values in zip(middles, rates, strict=True)],
        [max(values) - middle for middle, values in zip(middles, rates, strict=True)],
    ]
    axes.barh(names, middles, xerr=spreads, color=[_colour(name) for name in names], error_kw={"elinewidth": 0.8})
    for place, (middle, values) in enumerate(zip(middles, rates, strict=True)):
        axes.annotate(f" {middle:,.0f}", (max(middle, *values), place), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(case.name, loc="left")
    axes.set_xlabel("images/s, median and range")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)


def _colour(name: str) -> str:
    if name == "independent":
        return LIMIT
    return OURS if name == "one" or name.startswith("ours") else PEER
