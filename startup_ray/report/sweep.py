"""What a report tells of a sweep's search: what it cost, who came first, and each of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from startup_ray.metrics import AVERAGED
from startup_ray.report.board import board
from startup_ray.report.data import View
from startup_ray.report.parallel import parallel
from startup_ray.report.plots import trial_curves
from startup_ray.report.sweep_data import Sweep, chosen
from startup_ray.report.sweep_verdict import equal, headline, sure, trials_of
from startup_ray.report.wording import finite, key_names, metric_name
from startup_ray.tuning.journal import ENDS, Trial

MAX_ROWS = 15
"""Above, a table is folded."""
REASONS = {
    "asha": "fell behind",
    "budget": "the time was used up",
    "epochs": "the epochs were used up",
}
"""Why the sweep itself has stopped a trial."""

Values = dict[str, Any]


def sweep(view: View, key: str) -> Values | None:
    """Of a sweep, or of the one that a run's values come from."""
    found = view.sweep
    if found is None:
        return {"gone": view.from_sweep} if view.from_sweep else None
    names = key_names(dict.fromkeys(key for trial in [*found.trials, *found.again] for key in trial.values))
    troubles = _troubles([*found.trials, *found.again])
    return {
        "gone": "",
        "from_sweep": "" if view.is_sweep else view.from_sweep,
        "headline": headline(found),
        "sure": sure(found),
        "sweep": found,
        "counts": counts(found),
        "names": names,
        "board": board(found),
        "importance": importance(found, names),
        "parallel": parallel(found),
        "curves": _curves(found, key),
        "rows": [_row(trial, found) for trial in sorted([*found.trials, *found.again], key=lambda one: one.number)],
        "troubles": troubles,
        "max_rows": MAX_ROWS,
        "test": _test(found),
    }


def counts(found: Sweep) -> list[tuple[str, str]]:
    """What the sweep has done and cost, by name."""
    states = Counter(trial.state for trial in found.trials)
    asked, every = found.options, [*found.trials, *found.again]
    epochs, again = (sum(trial.epochs for trial in group) for group in (found.trials, found.again))
    told = [f"{states[state]:,} {state}" for state in ENDS]
    told += [f"{states['running']:,} not ended"] if states["running"] else []
    rows = [("trials", f"{len(found.trials):,}: {', '.join(told)}"), ("epochs of the search", _epochs(epochs, found))]
    if found.again:
        rows.append(("epochs of training again", f"{_epochs(again, found)}, in {trials_of(len(found.again))}"))
    rows.append(
        ("time of all trials", _seconds(found.document.get("seconds") or sum(trial.seconds for trial in every)))
    )
    if found.document.get("processes"):
        rows.append(("processes", f"{found.document['processes']:,}"))
    if found.wall_s:
        rows.append(("time of the search", _seconds(found.wall_s)))
    if asked:
        limits = [f"{asked.trials:,} trials"]
        limits += [_seconds(asked.budget)] if asked.budget else []
        limits += [f"{asked.epochs:,} epochs"] if asked.epochs else []
        rows.append(("budget", ", ".join(limits)))
    return rows


def _epochs(epochs: int, found: Sweep) -> str:
    told = equal(epochs, found)
    return f"{epochs:,}, {told}" if told else f"{epochs:,}"


def _seconds(seconds: float) -> str:
    """188.4 -> 188 s, and 9000 -> 2.5 h."""
    if seconds < 600:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7_200 else f"{seconds / 3_600:,.1f} h"


def importance(found: Sweep, names: Mapping[str, str]) -> list[Values]:
    """Axes by how much of the scores' spread they explain."""
    known = {key: value for key, value in found.document.get("importance", {}).items() if finite(value) is not None}
    order = sorted(known.items(), key=lambda pair: -pair[1])
    largest = max(known.values(), default=0) or 1
    return [
        {"name": names.get(key, key), "key": key, "value": value, "part": min(max(value / largest, 0), 1)}
        for key, value in order
    ]


def _curves(found: Sweep, key: str) -> Markup:
    kinds = {"finished": "finished", "stopped": "stopped", "running": "stopped"}
    winner = found.best.get("trial")
    drawn = [
        (
            "winner" if trial.number == winner else kinds.get(trial.state, "diverged"),
            [point for point in found.measure.curve(trial) if finite(point[1]) is not None],
        )
        for trial in chosen(found)
    ]
    label = metric_name(found.measure.metric)
    is_loss = found.measure.mode == "min"
    svg = trial_curves(drawn, label=label, may_be_log=is_loss, title="Scores of the trials by epoch", key=f"{key}w")
    return Markup(svg)  # noqa: S704 - matplotlib escapes the label


def _row(trial: Trial, found: Sweep) -> Values:
    is_winner = trial.number == found.best.get("trial")
    return {
        "trial": trial,
        "is_winner": is_winner,
        # Those of failed and diverged trials stand in full above.
        "reason": REASONS.get(trial.reason, trial.reason) if trial.state == "stopped" else "",
        "score": found.measure.score(trial),
        "seconds": trial.seconds - trial.start_s,
    }


def _troubles(trials: Sequence[Trial]) -> list[Values]:
    """Failed and diverged trials, those of one reason together."""
    found: dict[tuple[str, str], list[int]] = {}
    for trial in trials:
        if trial.state in ("failed", "diverged"):
            found.setdefault((trial.state, trial.reason), []).append(trial.number)
    return [{"state": state, "reason": reason, "trials": numbers} for (state, reason), numbers in found.items()]


def _test(found: Sweep) -> Values | None:
    """The winner's metrics on the test split."""
    test = found.document.get("test") or {}
    if not test.get("metrics"):
        return None
    ends = test.get("intervals") or {}
    rows = [
        {"name": name, "value": value, "ends": ends.get(name)}
        for name, value in test["metrics"].items()
        if name not in AVERAGED and finite(value) is not None
    ]
    return {"trial": test.get("trial"), "rows": rows}
