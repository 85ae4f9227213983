"""The sections of a run's report, in their order. A new one is a function here and a template beside it.

    Section("data", "Data", data)           # shown with templates/data.html.jinja, unless `data(view, key)` is None

In its template `s` is what the function returns, `view` the run, and `run.key` begins every id of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from startup_ray.report import classifier, gan, sweep, sweep_verdict
from startup_ray.report.data import View
from startup_ray.report.plots import curves

Values = dict[str, Any]


@dataclass(frozen=True)
class Section:
    name: str
    """Of its template, and in its anchor."""
    title: str
    """Empty: the template brings its own frame."""
    of: Callable[[View, str], Values | None]
    is_long: bool = False
    """May be broken across printed pages."""

    @property
    def template(self) -> str:
        return f"{self.name}.html.jinja"


def verdict(view: View, key: str) -> Values:  # noqa: ARG001
    if view.is_sweep:
        return sweep_verdict.verdict(view)
    if view.is_gan:
        return gan.verdict(view)
    rows = view.evaluation.get("rows", {})
    return {"left_over": {name: n for name, n in rows.items() if name not in ("total", "scored") and n}}


def asked(view: View, key: str) -> Values | None:  # noqa: ARG001
    return {"asked": view.asked} if view.asked else None


def data(view: View, key: str) -> Values:  # noqa: ARG001
    return {"same_as": "", "largest": max((row.total for row in view.labels), default=1) or 1}


def training(view: View, key: str) -> Values | None:
    plots = _plots(view, key)
    if not plots:
        return None
    step = view.train.get("step_s") or {}
    total = step.get("total") or 0
    parts = {"compute": "computing", "all_reduce": "all-reduce", "input": "waiting for images"}
    return {
        "plots": plots,
        "seconds": sum(record.get("seconds") or 0 for record in view.history),
        "step_ms": 1000 * total,
        "shares": [{"name": text, "share": step[name] / total} for name, text in parts.items()] if total else [],
    }


def reproduce(view: View, key: str) -> Values:  # noqa: ARG001
    return sweep_verdict.commands(view) if view.is_sweep else {}


SECTIONS = (
    Section("verdict", "", verdict),
    Section("asked", "What was asked", asked),
    Section("data", "Data", data, is_long=True),
    Section("sweep", "Sweep", sweep.sweep, is_long=True),
    Section("training", "Training", training),
    Section("metrics", "Metrics", classifier.metrics),
    Section("classes", "Classes", classifier.classes),
    Section("slices", "Slices", classifier.slices),
    Section("mistakes", "Wrong predictions", classifier.mistakes, is_long=True),
    Section("samples", "Samples", gan.samples, is_long=True),
    Section("reproduce", "How to reproduce", reproduce, is_long=True),
)


def _plots(view: View, key: str) -> list[Values]:
    """Drawings of training, those that there is anything to draw for."""
    plots = gan.plots(view) if view.is_gan else classifier.PLOTS
    found = []
    for i, plot in enumerate(plots):
        drawn = curves(view.history, plot.series, title=f"{plot.title} by epoch", key=f"{key}t{i}")
        if drawn:
            # Labels and titles are ours.
            found.append({"title": plot.title, "note": plot.note, "drawn": Markup(drawn)})  # noqa: S704
    return found


def shown(view: View, key: str, sections: Sequence[Section] = SECTIONS) -> list[Values]:
    """The sections that this run has, with what their templates show."""
    found = [(section, section.of(view, key)) for section in sections]
    return [
        {
            "name": section.name,
            "title": section.title,
            "template": section.template,
            "is_long": section.is_long,
            "shows": values,
        }
        for section, values in found
        if values is not None
    ]
