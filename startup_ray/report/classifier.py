"""Sections that only runs of classifiers have: metrics, classes, slices, wrong predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from startup_ray.metrics import AVERAGED
from startup_ray.report.data import View
from startup_ray.report.plots import Plot, reliability

MAX_MATRIX = 20
"""Classes up to which a confusion matrix is shown whole; above, only its largest wrong cells."""
MAX_CONFUSIONS = 12
MAX_CLASSES = 100
"""Classes up to which the table shows all; above, the worst."""
MAX_SLICES = 10
"""Of each column."""
PLOTS = (
    Plot(title="Loss", series={"train": "train/loss", "validation": "val/loss"}),
    Plot(
        title="Accuracy and F1",
        series={"train accuracy": "train/accuracy", "val accuracy": "val/accuracy", "val F1": "val/f1"},
    ),
)
"""Of training."""

Values = dict[str, Any]


def metrics(view: View, key: str) -> Values | None:
    evaluation = view.evaluation
    if not _is_scored(view):
        return None
    ends, bounds = evaluation["intervals"], evaluation.get("bounds", {})
    top = {f"top_{k}_accuracy" for k in (3, 5) if len(evaluation["classes"]) <= k}  # always all
    shown = [name for name in evaluation["metrics"] if name not in AVERAGED and name not in top]
    rows = [
        {
            "name": name,
            "value": evaluation["metrics"][name],
            "ends": ends.get(name),
            "bounds": (bounds[name][1] - bounds[name][0]) / 2 if name in bounds else 0,
        }
        for name in shown
    ]
    table = evaluation.get("calibration", [])
    drawn = reliability(table, title="Accuracy by confidence", key=f"{key}c") if table else ""
    return {"metrics": rows, "reliability": Markup(drawn)}  # noqa: S704 - all in it are numbers and texts of ours


def classes(view: View, key: str) -> Values | None:
    if not _is_scored(view):
        return None
    evaluation = view.evaluation
    anchors = {(cell[0].label, cell[0].predicted): _anchor(key, i) for i, cell in enumerate(view.mistakes.of_cells)}
    return {
        "matrix": matrix(evaluation, anchors) if len(evaluation["classes"]) <= MAX_MATRIX else [],
        "confusions": confusions(evaluation),
        "classes": per_class(evaluation),
    }


def slices(view: View, key: str) -> Values | None:  # noqa: ARG001
    """Columns that part the rows at all."""
    found = view.evaluation.get("slices", {})
    told = {column: rows[:MAX_SLICES] for column, rows in found.items() if len(rows) > 1}
    return {"slices": told} if told else None


def mistakes(view: View, key: str) -> Values | None:
    if not _is_scored(view) or view.dataset is None:
        return None
    cells = [{"anchor": _anchor(key, i), "mistakes": cell} for i, cell in enumerate(view.mistakes.of_cells)]
    return {"cells": cells}


def matrix(evaluation: Mapping[str, Any], anchors: Mapping[tuple[str, str], str]) -> list[list[Values]]:
    """Cells of the confusion matrix by row: count, share of the row in [0, 1], whether it is a hit, and an anchor."""
    names = evaluation["classes"]
    return [
        [
            {
                "count": value,
                "share": value / sum(row) if sum(row) else 0.0,
                "hit": i == j,
                "anchor": anchors.get((names[i], names[j]), ""),
            }
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(evaluation["confusion"])
    ]


def per_class(evaluation: Mapping[str, Any]) -> list[Values]:
    """Rows of the table of classes: all in their order, or the worst by F1 where they are too many."""
    rows: list[Values] = evaluation["per_class"]
    return rows if len(rows) <= MAX_CLASSES else sorted(rows, key=lambda row: row["f1"])[:MAX_CLASSES]


def confusions(evaluation: Mapping[str, Any]) -> list[Values]:
    """The largest wrong cells: true class, predicted class, rows, and their share of the true class."""
    names, cells = evaluation["classes"], evaluation["confusion"]
    found = [
        {"label": names[i], "predicted": names[j], "rows": value, "share": value / sum(row)}
        for i, row in enumerate(cells)
        for j, value in enumerate(row)
        if i != j and value
    ]
    return sorted(found, key=lambda cell: -cell["rows"])[:MAX_CONFUSIONS]


def _is_scored(view: View) -> bool:
    return bool(view.evaluation.get("rows", {}).get("scored"))


def _anchor(key: str, number: int) -> str:
    return f"{key}-confusion-{number}"
