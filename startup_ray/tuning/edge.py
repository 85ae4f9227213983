"""Ray Tune made to do what a conductor decides: it starts processes, calls them, and tells when one has died.

Nothing that Tune keeps matters: it is given a name of its own each time, and its snapshots are thrown away. What was
found is in the journal, so a sweep goes on in a new run of Tune. So is one whose processes have grown: a run of Tune
takes no new trials after a while, and the next begins with new processes.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from startup_ray.errors import StartupRayError
from startup_ray.remote import last_line
from startup_ray.trainers.preflight import per_worker
from startup_ray.tuning.conductor import Conductor
from startup_ray.tuning.groups import Groups
from startup_ray.tuning.journal import Trial
from startup_ray.tuning.trial import Terms, TrialProcess

RAY = "ray"
"""Ray Tune's own files while it runs."""
TRIALS_PER_PROCESS = 50
"""Then it is ended: TensorFlow grows by some megabytes with each model."""
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints boxes at any verbosity
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "1000000000",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class Relay:
    """One conductor after the other, each made when the one before it has had enough."""

    def __init__(self, conductors: Iterator[Conductor]) -> None:
        self._others = conductors
        self.now = next(conductors)
        self._is_last = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do for anyone."""
        while self.now.is_over and self.now.failure is None and not self._is_last:
            following = next(self._others, None)
            self._is_last = following is None
            self.now = following or self.now
        return self.now.is_over

    @contextmanager
    def failing(self) -> Iterator[None]:
        """An error of ours ends the sweep as it is: through Ray Tune it would come out as text."""
        try:
            yield
        except StartupRayError as error:
            self.now.failure = self.now.failure or error


def carry_out(
    relay: Relay,
    terms: Terms,
    *,
    slots: int,
    on_change: Callable[[Conductor], None],
    trials_per_process: int = TRIALS_PER_PROCESS,
) -> set[int]:
    """Run trials until the last conductor has had enough.

    Returns:
        Process ids of those that trained, each on its own node.

    Raises:
        StartupRayError: what ended the sweep.
        KeyboardInterrupt: after Ctrl-C; trials that ran go on from their checkpoints, next time.
    """
    pids: set[int] = set()
    with _settings(slots), _interruptible() as is_interrupted:
        while not relay.is_over and not is_interrupted():
            groups = Groups()
            watch = _Watch(relay, groups, pids, on_change)
            try:
                _run(relay, terms, watch, _Supply(relay, groups, slots * trials_per_process), is_interrupted)
            finally:
                groups.reap(after_s=0)
                terms.folder.delete(RAY)
            for trial in relay.now.running:
                relay.now.release(trial.number)
    if relay.now.failure is not None:
        raise relay.now.failure
    if is_interrupted():
        raise KeyboardInterrupt
    return pids


def _run(relay: Relay, terms: Terms, watch: _Watch, supply: _Supply, is_interrupted: Callable[[], bool]) -> None:
    resources: dict[str, float] = {"memory": 1} if terms.is_nested else per_worker(terms.scaling)
    tune.run(
        tune.with_parameters(TrialProcess, terms=terms),
        name=uuid.uuid4().hex,
        num_samples=-1,
        search_alg=supply,
        scheduler=_Scheduler(relay),
        stop=_Stopper(lambda: is_interrupted() or relay.now.failure is not None),
        callbacks=[watch],
        resources_per_trial=tune.PlacementGroupFactory([resources]),
        reuse_actors=not terms.is_nested,
        max_failures=0,
        raise_on_failed_trial=False,
        storage_path=terms.folder.path(RAY),
        trial_dirname_creator=lambda trial: str(trial.trial_id),
        verbose=0,
    )


class _NotKept:
    """Of Tune's snapshots, which pickle all its plugins, nothing is ever read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()


class _Supply(_NotKept, Searcher):
    def __init__(self, relay: Relay, groups: Groups, most: int) -> None:
        super().__init__()
        self._relay, self._groups, self._left = relay, groups, most
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        trial: Trial | None = None
        with self._relay.failing():
            if self._relay.is_over or self._left <= 0:
                return Searcher.FINISHED
            trial = self._relay.now.next()
        if trial is None:
            return None
        self._left -= 1
        self._numbers[trial_id] = trial.number
        self._groups.reap()
        return {"number": trial.number, "mark": self._groups.mark(trial.number)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._groups.end(self._numbers[trial_id])
        state = (result or {}).get("state")
        if error or state is None:
            return  # `_Watch` knows why; or the conductor has ended it
        number = self._numbers[trial_id]
        if result and result["fatal"]:
            self._relay.now.failure = pickle.loads(result["fatal"])  # noqa: S301 - from a process of ours
            self._relay.now.release(number)
            return
        with self._relay.failing():
            self._relay.now.end(number, state, result["reason"] if result else "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing of it is needed again."""

    def restore(self, checkpoint_path: str) -> None:
        """Never."""


class _Scheduler(_NotKept, FIFOScheduler):
    def __init__(self, relay: Relay) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._relay = relay

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number, conductor = trial.config["number"], self._relay.now
        goes_on = False
        with self._relay.failing():
            if "used" in result:
                conductor.started(number, dict(result["used"]), result["start_s"])
            lines = [dict(line) for line in result["lines"]]
            goes_on = conductor.report(number, *lines, is_last=result["is_last"])
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


class _Stopper(_NotKept, tune.Stopper):
    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._is_over()


class _Watch(_NotKept, tune.Callback):
    def __init__(self, relay: Relay, groups: Groups, pids: set[int], on_change: Callable[[Conductor], None]) -> None:
        self._relay, self._groups, self._pids, self._on_change = relay, groups, pids, on_change

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._on_change(self._relay.now)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._pids.add(int(result["pid"]))
        self._on_change(self._relay.now)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error()
        self._groups.lose(trial.config["number"])
        with self._relay.failing():
            self._relay.now.lost(trial.config["number"], last_line(error) if error else "its process died")
        self._on_change(self._relay.now)


@contextmanager
def _settings(slots: int) -> Iterator[None]:
    """Ray Tune's own in the environment, and its loggers silent: what it has to tell, it tells as errors."""
    wanted = {**_SETTINGS, "TUNE_MAX_PENDING_TRIALS_PG": str(slots)}  # by default it starts one after the other
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM as a flag, so that Tune ends its processes; at the second one they do what they did before."""
    asked = threading.Event()
    before: dict[int, Any] = {}

    def take(number: int, _: Any) -> None:
        asked.set()
        signal.signal(number, before[number])

    is_main = threading.current_thread() is threading.main_thread()
    for asks in (signal.SIGINT, signal.SIGTERM) if is_main else ():
        before[asks] = signal.signal(asks, take)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
