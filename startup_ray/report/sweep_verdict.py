"""What a report says of a sweep first: its winner, and how sure that is.

Law: a score of one training that was picked among many is never shown as what the winner is worth.
"""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from startup_ray.report.data import View
from startup_ray.report.sweep_data import Sweep
from startup_ray.report.wording import listed, metric_name, score
from startup_ray.tuning.journal import ENDS

Values = dict[str, Any]


def chip(found: Sweep) -> tuple[str, str]:
    """One word for the eye and its kind: good or open."""
    if not found.is_finished:
        return "not finished", "open"
    if not found.leaderboard:
        return "not confirmed", "open"
    if found.best.get("as_good"):
        return "may be chance", "open"
    return ("clear winner" if len(found.leaderboard) > 1 else "trained again"), "good"


def verdict(view: View) -> Values:
    found = view.sweep
    assert found is not None
    return {
        "headline": headline(found),
        "sure": sure(found),
        "tiles": _tiles(found),
        "values": found.best.get("values", {}),
    }


def headline(found: Sweep) -> str:
    best = found.best
    if not best:
        return "No trial has finished yet" if not found.is_finished else "No trial has finished"
    name = f"{metric_name(found.measure.metric)} {score(best['value'])}"
    if not found.is_finished:
        return f"Best so far: trial {best['trial']}, {name}"
    return f"Trial {best['trial']} is the best of {len(found.trials):,}: {name}"


def sure(found: Sweep) -> str:
    """How far the winner is to be trusted, in sentences."""
    best, confirmed = found.best, found.leaderboard
    if not found.is_finished:
        left = sum(trial.state == "running" for trial in [*found.trials, *found.again])
        return (
            f"The sweep has not finished{f': {trials_of(left)} not ended' if left else ''}. {_too_good(found)}".strip()
        )
    if not confirmed:
        return _too_good(found)
    seeds = len(confirmed[0]["scores"])
    told = f"The mean of {seeds} trainings with fresh seeds" if seeds > 1 else "One training with a fresh seed"
    ends = best.get("interval")
    told += f", 95% interval {score(ends[0])} to {score(ends[1])}. " if ends else ": no interval can be told. "
    others = len(confirmed) - 1
    if best.get("as_good"):
        numbers = best["as_good"]
        return f"{told}It may be chance: trial{'s' * (len(numbers) > 1)} {listed(numbers)} may be as good."
    if not others:
        return f"{told}No other trial was trained again."
    return f"{told}It is clearly better than the other {others} that were trained again."


def _too_good(found: Sweep) -> str:
    """What a score is worth that was picked."""
    finished = len(found.ranked)
    if finished < 2:
        return ""
    return (
        f"This score is of one training, picked as the best of {finished} that finished, so it is too good: "
        "partly the luckiest was picked. It was not trained again with fresh seeds (sweep.confirm)."
    )


def _tiles(found: Sweep) -> list[Values]:
    best, states = found.best, Counter(trial.state for trial in found.trials)
    parts = [f"{states[state]:,} {state}" for state in ENDS if states[state]]
    parts += [f"{states['running']:,} not ended"] if states["running"] else []
    tiles = [{"name": "trials", "value": f"{len(found.trials):,}", "notes": [", ".join(parts)]}]
    epochs = sum(trial.epochs for trial in found.trials)
    tiles.append(
        {
            "name": "epochs of the search",
            "value": f"{epochs:,}",
            "notes": [note] if (note := equal(epochs, found)) else [],
        }
    )
    if not best:
        return tiles
    shown = found.is_finished and bool(found.leaderboard)
    picked = ["one training, picked"] if len(found.ranked) > 1 else ["one training"]
    notes = ["mean of fresh seeds"] if shown else picked
    head = [{"name": metric_name(found.measure.metric), "value": score(best["value"]), "notes": notes}]
    if shown:
        head.append({"name": "found by the search", "value": score(best.get("found")), "notes": picked})
    return [*head, *tiles]


def equal(epochs: int, found: Sweep) -> str:
    """Of full trainings."""
    if not found.full or not epochs:
        return ""
    trainings = f"{epochs / found.full:,.1f}".removesuffix(".0")
    return f"as many as {trainings} full training{'s' * (trainings != '1')}"


def trials_of(number: int) -> str:
    return f"{number:,} trial{'s' * (number != 1)}"


def commands(view: View) -> Values:
    """With which a sweep is done again, and its winner trained."""
    place, found = view.folder, view.sweep
    is_local = "://" not in place
    lines = ["startup-ray sweep job.yaml    # the job below"]
    if found is not None and found.is_finished:
        lines.append(f"startup-ray train {shlex.quote(f'{place}/best.yaml')}")
        base = f"sqlite:///{place}/optuna.sqlite3" if is_local else "sqlite:///optuna.sqlite3"
        lines.append(f"optuna-dashboard {shlex.quote(base)}")
        lines[-1] += "" if is_local else f"    # a copy of {place}/optuna.sqlite3"
    return {"commands": lines}
