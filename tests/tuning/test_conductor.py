from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from startup_ray.errors import StartupRayError, UsageError
from startup_ray.runs import USED, put_json
from startup_ray.storage import Folder
from startup_ray.tuning.conductor import Limits
from startup_ray.tuning.journal import Trial, read_trial
from tests.tuning.made import MEASURE, Sweep, write_line

EPOCHS = 9


def curves(seed: int = 0, count: int = 27) -> list[list[float]]:
    """That rise to different heights."""
    rng = np.random.default_rng(seed)
    return [list(np.round(rng.uniform(0.2, 1) * (1 - 0.7 ** np.arange(1, EPOCHS + 1)), 4)) for _ in range(count)]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(Folder(str(tmp_path / "sweep")), curves())


def known(sweep: Sweep) -> list[Trial]:
    with sweep.conductor() as conductor:
        return conductor._journal.read()


def test_each_trial_ends_once_and_few_are_trained_to_the_end(sweep: Sweep) -> None:
    with sweep.conductor(trials=27) as conductor:
        trained = sweep.play(conductor)
    states = [trial.state for trial in known(sweep)]
    assert set(states) == {"finished", "stopped"}
    assert len(states) == 27
    assert 1 <= states.count("finished") <= 9
    assert trained < 27 * EPOCHS / 2
    best = max(range(27), key=lambda i: sweep.curves[i][-1])
    assert known(sweep)[best].state == "finished"


@pytest.mark.ray  # seconds, all together
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment_it_is_as_if_it_had_not_been(tmp_path: Path, seed: int) -> None:
    whole, killed = (Sweep(Folder(str(tmp_path / name)), curves(seed)) for name in ("whole", "killed"))
    with whole.conductor(trials=27) as conductor:
        undisturbed = whole.play(conductor)
    rng, trained = np.random.default_rng(seed), 0
    for _ in range(3):
        with killed.conductor(trials=27) as conductor:
            trained += killed.play(conductor, epochs=int(rng.integers(1, undisturbed // 2)))
    with killed.conductor(trials=27) as conductor:
        trained += killed.play(conductor)
    assert known(killed) == known(whole)
    assert trained == undisturbed


def test_a_report_that_nobody_has_heard_is_in_the_journal(sweep: Sweep) -> None:
    with sweep.conductor(trials=2) as conductor:
        assert conductor.next() is not None
        write_line(conductor._journal.place(0), {"epoch": 1, "val/f1": 0.5, "val/loss": 1.0})
    with sweep.conductor(trials=2) as conductor:
        assert conductor.trials[0].curve("val/f1", "val/f1") == ((1, 0.5),)
        assert conductor._rungs is not None
        assert not conductor._rungs.report(5, 1, 0.4)


def test_a_trial_that_was_never_told_to_stop_is_told_later(sweep: Sweep) -> None:
    sweep.curves = [[0.9] * EPOCHS, [0.1] * EPOCHS, [0.8] * EPOCHS]
    with sweep.conductor(trials=3) as conductor:
        sweep.play(conductor, epochs=EPOCHS)  # the first, to its end
        assert conductor.next() is not None
        place = conductor._journal.place(1)
        write_line(place, {"epoch": 1, "val/f1": 0.1, "val/loss": 1.0})
        put_json(place, USED, {"epochs": EPOCHS})
    with sweep.conductor(trials=3) as conductor:
        trial = conductor.next()
        assert trial is not None
        assert trial.number == 2
        assert (conductor.trials[1].state, conductor.trials[1].reason) == ("stopped", "asha")


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_epoch_more_than_the_budget_has(tmp_path: Path, slots: int) -> None:
    sweep = Sweep(Folder(str(tmp_path / "sweep")), curves(), slots=slots)
    with sweep.conductor(limits=Limits(epochs=50)) as conductor:
        assert sweep.play(conductor) == 50
        assert conductor.is_over
    ended = [trial for trial in known(sweep) if trial.reason == "epochs"]
    assert len(ended) <= slots
    assert all(trial.state == "stopped" for trial in ended)


def test_wall_time_counts_that_of_before(sweep: Sweep) -> None:
    with sweep.conductor(limits=Limits(seconds=30)) as conductor:
        assert sweep.play(conductor, epochs=20) == 20
        spent = conductor.spent_s
    with sweep.conductor(limits=Limits(seconds=30), spent_s=spent) as conductor:
        assert sweep.play(conductor) == 10


def test_a_lost_trial_goes_on_and_not_for_ever(sweep: Sweep) -> None:
    with sweep.conductor(trials=1, max_failures=2) as conductor:
        for _ in range(3):
            trial = conductor.next()
            assert trial is not None
            assert trial.number == 0
            assert sweep.train(conductor, 0)
            conductor.lost(0, "killed by SIGKILL")
        assert conductor.next() is None
        assert conductor.is_over
    (trial,) = known(sweep)
    assert (trial.state, trial.reason, trial.epochs) == ("failed", "killed by SIGKILL", 3)


def test_what_is_released_is_begun_again_and_costs_nothing(sweep: Sweep) -> None:
    with sweep.conductor(trials=1) as conductor:
        for _ in range(5):
            trial = conductor.next()
            assert trial is not None
            conductor.release(trial.number)
        sweep.play(conductor)
    assert [trial.state for trial in known(sweep)] == ["finished"]


def test_a_worker_that_uses_other_values_ends_the_sweep(sweep: Sweep) -> None:
    with sweep.conductor(trials=3) as conductor:
        conductor.next()
        conductor.started(0, {"model.dense": 0}, 1.5)
        assert not conductor.is_over
        conductor.started(0, {"model.dense": 64}, 0.0)
        assert isinstance(conductor.failure, StartupRayError)
        told = "was to be trained with {'model.dense': 0} and its worker used {'model.dense': 64}"
        assert told in conductor.failure.message
        assert conductor.trials[0].start_s == 1.5


def test_a_metric_that_is_never_reported_is_told_after_the_first_report(sweep: Sweep) -> None:
    with sweep.conductor(trials=3) as conductor:
        conductor.next()
        line = {"epoch": 1, "train/loss": 2.0, "val/accuracy": 0.5, "seconds": 1.0}
        assert not conductor.report(0, line, is_last=False)
        assert isinstance(conductor.failure, UsageError)
        assert conductor.failure.hint == "it reports train/loss, val/accuracy"


def test_epochs_reported_together_count_as_one_by_one(sweep: Sweep) -> None:
    with sweep.conductor(trials=2) as conductor:
        for number, reach in enumerate([0.5, 0.4]):
            conductor.next()
            lines = [{"epoch": epoch, "val/f1": reach * epoch, "seconds": 1.0} for epoch in (1, 2, 3)]
            assert conductor.report(number, lines[0], is_last=False) == (number == 0)
            if number == 0:
                assert conductor.report(number, *lines[1:], is_last=True)
                conductor.end(number, "finished")
        assert conductor.epochs == 4
        assert MEASURE.curve(conductor.trials[0]) == ((1, 0.5), (2, 1.0), (3, 1.5))


def test_more_trials_go_on_where_fewer_had_ended(sweep: Sweep) -> None:
    for trials in (3, 9):
        with sweep.conductor(trials=trials) as conductor:
            sweep.play(conductor)
    assert [trial.number for trial in known(sweep)] == list(range(9))


def test_what_only_goes_on_is_dropped_at_the_end(sweep: Sweep) -> None:
    with sweep.conductor(trials=1) as conductor:
        conductor.next()
        place = conductor._journal.place(0)
        for name in ("checkpoints/9/state.json", "LATEST", "features.keras", "last.keras"):
            place.put_whole(name, b"x")
        sweep.play(conductor, epochs=0)
        conductor.end(0, "diverged", "training diverged: the loss of step 3 is not finite")
    assert place.list() == ["end.json", "trial.json"]
    trial = read_trial(place)
    assert trial is not None
    assert (trial.state, trial.reason) == ("diverged", "training diverged: the loss of step 3 is not finite")
