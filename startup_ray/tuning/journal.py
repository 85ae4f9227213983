"""What is known of the trials of a sweep: each has a folder of its own, and these folders are the journal.

    trials/00007/trial.json             what is to be trained; written before the trial begins
                 used.json metrics/*    what its worker uses and has reached, on storage before anybody is told
                 end.json               how it ended; written once, and before anything else is done about it

Law: whoever reads the folders knows all that was known when the sweep was killed, whatever was killed and when. A trial
without `end.json` goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from startup_ray.lease import Fence
from startup_ray.merit import kept
from startup_ray.runs import FEATURES, LAST_MODEL, USED, put_json, read_history, read_json
from startup_ray.storage import Folder

TRIALS = "trials"
TRIAL = "trial.json"
END = "end.json"
SPENT = "spent.json"
"""Of the sweep: wall time of the search so far."""
READERS = 16
"""Trials read at the same time: an object store answers slowly, but many at a time."""
_ONLY_TO_GO_ON = ("checkpoints", "LATEST", LAST_MODEL, FEATURES)

State = Literal["running", "finished", "stopped", "diverged", "failed"]
ENDS: tuple[State, ...] = ("finished", "stopped", "diverged", "failed")


@dataclass(frozen=True, kw_only=True)
class Trial:
    number: int
    """From 0, in the order in which they began."""
    values: dict[str, Any]
    """Of the axes that are active, by their dotted keys."""
    seed: int
    of: int | None = None
    """The trial that this one confirms with a fresh seed; None: it belongs to the search."""
    state: State = "running"
    """`stopped`: by the scheduler or a budget; `diverged`: its loss or weights were not finite; `failed`: anything
    else that ended it."""
    reason: str = ""
    lines: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Metrics of its epochs."""
    start_s: float = 0.0
    """Of all its attempts, from when a worker took it to its first step."""

    most_epochs: int = 0
    """That it has; 0 where it has ended or not begun, and nobody needs to know."""

    def curve(self, metric: str, monitor: str) -> tuple[tuple[int, float], ...]:
        """After each epoch, the metric of the model that it would keep; see `merit.kept`."""
        return kept([self.lines[epoch] for epoch in sorted(self.lines)], monitor, metric)

    @property
    def epochs(self) -> int:
        return len(self.lines)

    @property
    def seconds(self) -> float:
        """Of its epochs and starts."""
        return self.start_s + sum(float(line.get("seconds", 0.0)) for line in self.lines.values())


@dataclass(frozen=True)
class Journal:
    """The one who writes it holds the lease of the sweep's folder."""

    folder: Folder
    fence: Fence

    def place(self, number: int) -> Folder:
        """A trial's folder, which is that of a run."""
        return self.folder / TRIALS / f"{number:05d}"

    def read(self) -> list[Trial]:
        """All trials, by number."""
        return read_trials(self.folder)

    def begin(self, trial: Trial) -> None:
        self.fence.check()
        plan = {"number": trial.number, "values": trial.values, "seed": trial.seed, "of": trial.of}
        put_json(self.place(trial.number), TRIAL, plan)

    def end(self, trial: Trial, *, is_at_work: bool) -> None:
        """Write down how it ended, and delete what only an unfinished trial needs.

        Args:
            is_at_work: it is still writing, and deletes that itself when it has heard of its end.
        """
        self.fence.check()
        place = self.place(trial.number)
        put_json(place, END, {"state": trial.state, "reason": trial.reason, "start_s": round(trial.start_s, 3)})
        if not is_at_work:
            drop(place)


def drop(place: Folder) -> None:
    """Delete what only an unfinished trial needs."""
    for name in _ONLY_TO_GO_ON:
        place.delete(name)


def pick(plain: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Values of nested mappings by their dotted keys; None where there is none."""
    found: dict[str, Any] = {}
    for key in keys:
        value: Any = plain
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found[key] = value
    return found


def read_trials(folder: Folder) -> list[Trial]:
    """All trials of a sweep's folder, by number; who only reads needs no lease."""
    names = [name for name in folder.list(TRIALS) if name.isdigit()]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: read_trial(folder / TRIALS / name), names)
        return [trial for trial in found if trial is not None]


def read_trial(place: Folder) -> Trial | None:
    """What a folder tells of its trial; None if it was not to begin yet."""
    plan = read_json(place, TRIAL)
    if not plan:
        return None
    lines = {record["epoch"]: record for record in read_history(place)}
    end = read_json(place, END)
    most = 0 if end else int(read_json(place, USED).get("epochs", 0))
    return Trial(**plan, **end, lines=lines, most_epochs=most)
