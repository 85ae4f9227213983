"""Views of runs -> one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import startup_ray
from startup_ray.report.data import View, flat
from startup_ray.report.gan import differ
from startup_ray.report.sections import shown
from startup_ray.report.sweep_verdict import chip
from startup_ray.report.wording import (
    count,
    distance,
    metric_name,
    number,
    percent,
    points,
    score,
    setting,
    span,
    wording,
)

MAX_DIFFERENCES = 6
COMPARED = ("accuracy", "f1", "balanced_accuracy")
"""Metrics whose differences stand in a comparison."""


def environment() -> Environment:
    """Templates that escape all they are given."""
    made = Environment(
        loader=PackageLoader("startup_ray.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": percent,
        "number": number,
        "count": count,
        "distance": distance,
        "span": span,
        "points": points,
        "wording": wording,
        "score": score,
        "setting": setting,
        "metric_name": metric_name,
    }
    return made


def render(views: Sequence[View], pairs: Sequence[dict[str, Any]] = ()) -> str:
    """The page. Everything in it is escaped but for our own drawings.

    Args:
        views: of the runs.
        pairs: comparisons with the first run: `run`, and `document` with its `verdict`, or the `reason` for none.
    """
    runs = [describe(view, f"r{i}") for i, view in enumerate(views)]
    _tell_datasets_once(views, runs)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            runs=runs,
            differences=differences(views),
            incomparable=differ(views),
            pairs=pairs,
            compared=COMPARED,
            version=startup_ray.__version__,
        )
    )


def describe(view: View, key: str) -> dict[str, Any]:
    """What the template shows of one run; `key` begins the ids of all that is in it."""
    return {"view": view, "key": key, "verdict": verdict(view), "sections": shown(view, key)}


def verdict(view: View) -> tuple[str, str]:
    """One word for the eye and its kind: good, bad or open."""
    if view.is_sweep and view.sweep:
        return chip(view.sweep)
    gates = view.evaluation.get("gates", [])
    if not view.evaluation:
        return ("not evaluated", "open") if view.train else ("not finished", "open")
    if not view.is_gan and view.evaluation["metrics"]["accuracy"] is None:
        return "no labelled rows", "open"
    if not gates:
        return "no gates set", "open"
    missed = sum(not gate["passed"] for gate in gates)
    if missed:
        return f"{missed} of {len(gates)} gates not met", "bad"
    return ("gate met" if len(gates) == 1 else f"all {len(gates)} gates met"), "good"


def differences(views: Sequence[View]) -> dict[str, list[Any]]:
    """Values of the job keys in which the runs differ, a list in the order of the runs."""
    jobs = [flat(view.job) for view in views]
    keys = dict.fromkeys(key for job in jobs for key in job)
    found = {key: [job.get(key, "") for job in jobs] for key in keys if key not in ("name", "storage")}
    differing = {key: values for key, values in found.items() if any(value != values[0] for value in values)}
    return dict(list(differing.items())[:MAX_DIFFERENCES])


def _tell_datasets_once(views: Sequence[View], runs: Sequence[dict[str, Any]]) -> None:
    """A dataset of several runs is shown with the first of them."""
    first: dict[str, str] = {}
    for view, run in zip(views, runs, strict=True):
        if view.dataset is None:
            continue
        name = first.setdefault(view.dataset.digest, view.name)
        for section in run["sections"]:
            if section["name"] == "data" and name != view.name:
                section["shows"]["same_as"] = name
