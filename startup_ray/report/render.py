"""Views of runs -> one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import startup_ray
from startup_ray.report.data import View
from startup_ray.report.plots import curves

MAX_MATRIX = 20
"""Classes up to which a confusion matrix is shown whole; above, only its largest wrong cells."""
MAX_CONFUSIONS = 12
MAX_CLASSES = 100
"""Classes up to which the table shows all; above, the worst."""
MAX_DIFFERENCES = 6


def render(views: Sequence[View]) -> str:
    """The page. Everything in it is escaped but for our own drawings."""
    environment = Environment(
        loader=PackageLoader("startup_ray.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "count": count, "span": span}
    template = environment.get_template("report.html.jinja")
    return template.render(
        runs=[describe(view, f"r{i}") for i, view in enumerate(views)],
        differences=differences(views),
        version=startup_ray.__version__,
    )


def describe(view: View, key: str) -> dict[str, Any]:
    """What the template shows of one run; `key` sets the ids of its drawings apart."""
    evaluation = view.evaluation
    return {
        "view": view,
        "verdict": verdict(view),
        "loss": _drawn(view, {"train": "train/loss", "validation": "val/loss"}, "Loss by epoch", f"{key}l"),
        "quality": _drawn(
            view,
            {"train accuracy": "train/accuracy", "val accuracy": "val/accuracy", "val F1": "val/f1"},
            "Accuracy and F1 by epoch",
            f"{key}q",
        ),
        "matrix": matrix(evaluation) if 0 < len(evaluation.get("classes", ())) <= MAX_MATRIX else [],
        "confusions": confusions(evaluation) if evaluation else [],
        "classes": per_class(evaluation) if evaluation else [],
        "left_over": {
            name: n for name, n in evaluation.get("rows", {}).items() if name not in ("total", "scored") and n
        },
        "seconds": sum(record.get("seconds") or 0 for record in view.history),
    }


def verdict(view: View) -> tuple[str, str]:
    """One word for the eye and its kind: good, bad or open."""
    gates = view.evaluation.get("gates", [])
    if not view.evaluation:
        return ("not evaluated", "open") if view.train else ("not finished", "open")
    if view.evaluation["metrics"]["accuracy"] is None:
        return "no labelled rows", "open"
    if not gates:
        return "no gates set", "open"
    missed = sum(not gate["passed"] for gate in gates)
    if missed:
        return f"{missed} of {len(gates)} gates not met", "bad"
    return ("gate met" if len(gates) == 1 else f"all {len(gates)} gates met"), "good"


def matrix(evaluation: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Cells of the confusion matrix by row: count, share of the row in [0, 1], and whether it is a hit."""
    return [
        [{"count": value, "share": value / sum(row) if sum(row) else 0.0, "hit": i == j} for j, value in enumerate(row)]
        for i, row in enumerate(evaluation["confusion"])
    ]


def per_class(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of classes: all in their order, or the worst by F1 where they are too many."""
    rows: list[dict[str, Any]] = evaluation["per_class"]
    return rows if len(rows) <= MAX_CLASSES else sorted(rows, key=lambda row: row["f1"])[:MAX_CLASSES]


def confusions(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The largest wrong cells: true class, predicted class, rows, and their share of the true class."""
    names, cells = evaluation["classes"], evaluation["confusion"]
    found = [
        {"label": names[i], "predicted": names[j], "rows": value, "share": value / sum(row)}
        for i, row in enumerate(cells)
        for j, value in enumerate(row)
        if i != j and value
    ]
    return sorted(found, key=lambda cell: -cell["rows"])[:MAX_CONFUSIONS]


def differences(views: Sequence[View]) -> dict[str, list[Any]]:
    """Values of the job keys in which the runs differ, a list in the order of the runs."""
    flat = [_flat(view.job) for view in views]
    keys = dict.fromkeys(key for job in flat for key in job)
    found = {key: [job.get(key, "") for job in flat] for key in keys if key not in ("name", "storage")}
    differing = {key: values for key, values in found.items() if any(value != values[0] for value in values)}
    return dict(list(differing.items())[:MAX_DIFFERENCES])


def percent(value: float | None) -> str:
    """0.9833 -> 98.3%; never 100% for less than all."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}"
    return "99.9%" if text == "100.0" and value < 1 else f"{text}%"


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def count(value: float | None) -> str:
    """12345.6 -> 12,346."""
    return "–" if value is None else f"{value:,.0f}"


def span(ends: Sequence[float] | None) -> str:
    """An interval in percent."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else ""


def _drawn(view: View, series: Mapping[str, str], title: str, key: str) -> Markup:
    return Markup(curves(view.history, series, title=title, key=key))  # noqa: S704 - labels and titles are ours


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
