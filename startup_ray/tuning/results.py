"""What is left of a sweep: who has won and how sure that is, and the files that say so.

exit.json       the document of `startup-ray sweep --json`
best.yaml       a job file with the winner's values, for `startup-ray train`
trials.csv      a row per trial
optuna.sqlite3  the same for optuna-dashboard
"""

from __future__ import annotations

import importlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from startup_ray.errors import TrainingError
from startup_ray.job import Job
from startup_ray.ledger import redact
from startup_ray.options import GanOptions
from startup_ray.runs import EXIT, extent, location_of, put_json
from startup_ray.space import set_values
from startup_ray.storage import open_folder
from startup_ray.sweep_options import SweepOptions
from startup_ray.tuning.journal import ENDS, Trial
from startup_ray.tuning.leaderboard import SHOWN, Place, as_csv, places, ranked, row_of, table
from startup_ray.tuning.measure import Measure
from startup_ray.tuning.optuna_file import importance, write_sqlite
from startup_ray.tuning.study import Told
from startup_ray.tuning.trial import Terms

BEST = "best.yaml"
TABLE = "trials.csv"
OPTUNA = "optuna.sqlite3"
TEST = "test"
_LIBRARIES = ("sklearn.ensemble", "sqlalchemy.orm", "alembic.migration", "matplotlib.figure")


def finish(
    terms: Terms,
    searched: Sequence[Trial],
    confirmed: Sequence[Trial],
    measure: Measure,
    *,
    processes: int,
    tested: Mapping[str, Any],
) -> dict[str, Any]:
    """Write all that a sweep leaves, `exit.json` last."""
    terms.fence.check()
    folder, options = terms.folder, terms.job.sweep
    assert options is not None
    best = ranked(searched, measure)
    again = places(best, confirmed, measure)
    winner = again[0].values if again else best[0].values
    told = [
        Told(number=trial.number, values=trial.values, state=trial.state, curve=measure.curve(trial))
        for trial in searched
    ]
    folder.put_whole(BEST, best_job(terms.job, winner, str(folder)))
    folder.put_whole(TABLE, as_csv(table([*searched, *confirmed], measure)))
    folder.put_whole(OPTUNA, _sqlite(folder.name, options, told, measure))
    document = {
        "sweep": str(folder),
        **_counts(searched),
        "confirmed": len(confirmed),
        "epochs": sum(trial.epochs for trial in searched),
        "confirm_epochs": sum(trial.epochs for trial in confirmed),
        "seconds": round(sum(trial.seconds for trial in [*searched, *confirmed]), 1),
        "processes": processes,
        "metric": measure.metric,
        "mode": measure.mode,
        "best": _best(best, again, measure),
        "leaderboard": [place.row() for place in again],
        "search": [row_of(trial, measure) for trial in best[:SHOWN]],
        "importance": importance(options.axes, told, measure.mode),
        "test": dict(tested),
        "job": folder.path(BEST),
        "asked": extent(options),
    }
    put_json(folder, EXIT, document)
    return document


def load() -> None:
    """Import what `finish` and the report will use: it takes a second or two, and is best done while trials run."""
    with suppress(ImportError):  # told where they are used
        for name in _LIBRARIES:
            importlib.import_module(name)


def best_job(job: Job, values: Mapping[str, Any], sweep: str) -> bytes:
    """A job file with these values, which can be read from anywhere; without secrets."""
    plain = set_values(job.model_dump(mode="json", exclude_unset=True, exclude={"sweep"}), values)
    plain["storage"] = str(open_folder(job.storage))
    plain["ingest"]["manifest"] = redact(location_of(job.ingest.manifest))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return f"# The best of {redact(sweep)}\n{text}".encode()


def test_winner(terms: Terms, best: Sequence[Trial], confirmed: Sequence[Trial], measure: Measure) -> dict[str, Any]:
    """Judge the winner on the test split, by its first training with a fresh seed: the one look at that split.

    Raises:
        TrainingError: no training with a fresh seed has finished.
    """
    found = places(best, confirmed, measure)
    if not found:
        reasons = sorted({trial.reason for trial in confirmed})
        raise TrainingError(f"none of the best trains with other seeds: {reasons[0]}", where=str(terms.folder))
    winner = found[0].trial
    first = next(trial for trial in confirmed if trial.of == winner and trial.state == "finished")
    run, options = terms.journal.place(first.number), terms.job.evaluation.model_copy(update={"gates": ()})
    target = terms.folder / TEST
    if isinstance(terms.job.model, GanOptions):
        from startup_ray.trainers.gan.evaluation import evaluate_gan

        told = evaluate_gan(run, terms.dataset, target, options=options, seed=terms.job.seed)
    else:
        from startup_ray.evaluate import evaluate

        told = evaluate(run, terms.dataset, target, options=options, seed=terms.job.seed)
    return {"trial": first.number, "metrics": told["metrics"], "intervals": told.get("intervals", {})}


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    states = Counter(trial.state for trial in trials)
    return {"trials": len(trials), **{name: states[name] for name in ENDS}}


def _best(best: Sequence[Trial], again: Sequence[Place], measure: Measure) -> dict[str, Any]:
    named = {"metric": measure.metric}
    if not again:
        return {**named, **row_of(best[0], measure)}
    first = again[0]
    return {
        **named,
        "trial": first.trial,
        "values": first.values,
        "value": first.mean,
        "interval": first.interval,
        "found": first.found,
        "as_good": [place.trial for place in again[1:] if place.is_noise is not False],
    }


def _sqlite(name: str, options: SweepOptions, told: Sequence[Told], measure: Measure) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, OPTUNA)
        write_sqlite(str(path), name, options.axes, told, measure.mode)
        return path.read_bytes()
