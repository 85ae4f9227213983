"""A model card: what others should know of a model before they use it, in Markdown.

The headings are those of Mitchell et al. 2019 (arXiv:1810.03993). What only people know is left to them, and said so.
"""

from __future__ import annotations

import re
from typing import Any

import startup_ray
from startup_ray.report.data import View
from startup_ray.report.gan import judge, metric_rows, nearest
from startup_ray.report.wording import number, percent, span, wording

TO_FILL = "_To be written by whoever publishes it._"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~-])")
MAX_CLASSES = 50


def card(view: View) -> str:
    """Markdown of a run's model; texts from outside are escaped."""
    parts = [
        f"# {plain(view.name)}",
        _details(view),
        f"## Intended use\n\n{TO_FILL}",
        _data(view),
        _evaluation(view),
        f"## Limits\n\n{_limits(view)}",
        f"## Ethical considerations\n\n{TO_FILL}",
        f"Written by startup_ray {startup_ray.__version__}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: Any) -> str:
    """Text in which nothing is Markdown, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def _details(view: View) -> str:
    versions = view.environment.get("versions", {})
    rows = {
        "Kind": view.train.get("kind"),
        "Weights": view.train.get("weights_digest"),
        "Trained": f"{view.train['epochs']} epochs, {view.train['steps']} steps" if view.train.get("epochs") else None,
        "Seed": view.job.get("seed"),
        "Libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    asked = [f"- `{key}`: {plain(value)}" for key, value in view.asked.items()]
    head = ["", "Options that are not the defaults:", ""] if asked else []
    return "\n".join(["## Model details", "", _table(rows), *head, *asked])


def _data(view: View) -> str:
    dataset = view.dataset
    if dataset is None:
        return "## Data\n\nThe dataset is not where it was."
    splits = ", ".join(f"{name} {rows:,}" for name, rows in dataset.splits.items())
    names = [plain(name) for name in dataset.classes[:MAX_CLASSES]]
    more = f" and {len(dataset.classes) - MAX_CLASSES:,} more" if len(dataset.classes) > MAX_CLASSES else ""
    rows = {
        "Images": f"{sum(dataset.splits.values()):,} of {dataset.items:,} items of the manifest ({splits})",
        "Shape": " x ".join(str(side or "any") for side in dataset.image_shape),
        "Manifest": view.manifest,
        "Digest": dataset.digest,
    }
    return "\n".join(["## Data", "", _table(rows), "", f"Classes: {', '.join(names)}{more}."])


def _evaluation(view: View) -> str:
    evaluation = view.evaluation
    if view.is_gan and evaluation:
        return _evaluation_of_samples(evaluation)
    if not evaluation.get("rows", {}).get("scored"):
        return "## Evaluation\n\nNot evaluated."
    ends = evaluation["intervals"]
    lines = [
        f"| {wording(name)} | {number(value)} | {_ends(ends.get(name))} |"
        for name, value in evaluation["metrics"].items()
        if value is not None
    ]
    head = f"On {evaluation['rows']['scored']:,} images of the {evaluation['split']} split."
    table = ["| metric | value | 95% interval |", "|---|---|---|", *lines]
    return "\n".join(["## Evaluation", "", head, "", *table, *_gates(evaluation)])


def _evaluation_of_samples(evaluation: dict[str, Any]) -> str:
    """Beside each metric what as many samples have as there are test images, and what these have."""
    rows = evaluation["floor"]["rows"]
    parts = {"generated": f"of {rows:,} samples", "real": f"of {rows:,} test images"} if rows else {}
    lines = [
        [plain(wording(row["name"])), row["value"], *(row[part] for part in parts), row["meaning"]]
        for row in metric_rows(evaluation)
    ]
    head = ["metric", "value", *parts.values(), "meaning"]
    table = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]
    return "\n".join(["## Evaluation", "", plain(judge(evaluation)), "", *table, *_gates(evaluation)])


def _gates(evaluation: dict[str, Any]) -> list[str]:
    gates = [f"- {plain(gate['gate'])}: {'met' if gate['passed'] else 'NOT MET'}" for gate in evaluation["gates"]]
    return ["", "Gates:", "", *gates] if gates else []


def _limits(view: View) -> str:
    """The weakest classes and slices that the evaluation has found, or the rarest classes and copies among samples."""
    if view.is_gan and view.evaluation:
        return _limits_of_samples(view.evaluation)
    if not view.evaluation.get("rows", {}).get("scored"):
        return TO_FILL
    worst = sorted((row for row in view.evaluation["per_class"] if row["support"]), key=lambda row: row["f1"])[:3]
    lines = [f"- class {plain(row['class'])}: F1 {percent(row['f1'])} on {row['support']:,} images" for row in worst]
    for column, rows in view.evaluation.get("slices", {}).items():
        if len(rows) > 1:
            row = rows[0]
            ends = span((row["low"], row["high"]))
            lines.append(f"- {column} {plain(row['value'])}: accuracy {percent(row['accuracy'])} ({ends})")
    return "\n".join(["Where it was weakest:", "", *lines, "", TO_FILL])


def _limits_of_samples(evaluation: dict[str, Any]) -> str:
    rarest = sorted(evaluation["modes"], key=lambda row: row["share"])[:3]
    lines = [f"- class {plain(row['class'])}: {percent(row['share'])} of the samples" for row in rarest]
    copies = nearest(evaluation["metrics"])
    lines += [f"- copies: {plain(copies)}"] if copies else []
    return "\n".join(["Where it was weakest:", "", *lines, "", TO_FILL]) if lines else TO_FILL


def _table(rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {plain(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *lines])


def _ends(ends: Any) -> str:
    return f"{number(ends[0])} to {number(ends[1])}" if ends else ""
