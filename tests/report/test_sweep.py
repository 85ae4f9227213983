"""Reports of sweeps: how sure the winner is, what each trial was, and that nothing from outside is more than text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from startup_ray import runs
from startup_ray.report import write_report
from startup_ray.report.data import read_views
from startup_ray.report.sweep import MAX_ROWS
from startup_ray.report.sweep_data import MAX_LINES, Sweep, chosen, read_sweep
from startup_ray.storage import Folder
from tests.report.made import HISTORY, JOB, dataset_in, judged, run_in
from tests.report.made_sweep import BEST, SPACE, confirmed, finished, many, searched, sweep_in, trial_in
from tests.report.tags import Tags

EVIL = ("</style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} $x^$ & 'y' ]]>")
CLEAR = {1: (0.94, 0.945, 0.95), 0: (0.80, 0.81, 0.82)}
CLOSE = {1: (0.94, 0.945, 0.95), 0: (0.95, 0.93, 0.945)}


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def sweep(storage: Folder) -> Folder:
    """Searched, neither confirmed nor finished."""
    folder = sweep_in(storage / "sweep")
    searched(folder)
    return folder


def tags_of(storage: Folder, *found: Folder) -> Tags:
    return Tags(Path(write_report(found, storage.path("out/report.html"))).read_text("utf-8"))


def known(folder: Folder) -> Sweep:
    found = read_sweep(folder)
    assert found is not None
    return found


def test_a_confirmed_sweep_shows_how_sure_its_winner_is(storage: Folder, sweep: Folder) -> None:
    confirmed(sweep, CLEAR)
    finished(sweep, importance={"model.dense": 0.25, "training.learning_rate": 0.75})
    tags = tags_of(storage, sweep)
    text = tags.words
    assert "Trial 1 is the best of 4: val F1 0.9450" in text
    assert "mean of 3 trainings with fresh seeds, 95% interval 0.9326 to 0.9574" in text
    assert "clearly better than the other 1 that were trained again" in text
    assert "clear winner" in text
    assert "0.9400, 0.9450, 0.9500" in text
    assert "found by the search 0.9500 one training, picked" in text
    assert "0.1350 0.1226 to 0.1474 clear" in text
    assert "4: 2 finished, 1 stopped, 1 diverged, 0 failed" in text
    assert "8, as many as 2.7 full trainings" in text
    assert "18, as many as 6 full trainings, in 6 trials" in text
    assert re.search(r"learning_rate +75\.0% dense +25\.0%", text)
    assert "of the searched space only" in text
    assert "diverged 3 the loss is not finite at step 12" in text
    assert "fell behind" in text
    assert "as trial 0, with seed 103" in text
    assert tags.sections == ["asked", "data", "sweep", "reproduce"]
    assert sum(given.get("role") == "img" for tag, given in tags.found if tag == "svg") == 2
    assert "None" not in text
    assert not storage.exists("out/MODEL_CARD.md")
    page = storage.read("out/report.html")
    tags_of(storage, sweep)
    assert page == storage.read("out/report.html")


def test_a_winner_by_chance_is_said_to_be_one(storage: Folder, sweep: Folder) -> None:
    confirmed(sweep, CLOSE)
    finished(sweep)
    text = tags_of(storage, sweep).words
    assert text.count("may be chance") >= 2
    assert "It may be chance: trial 0 may be as good." in text


def test_one_fresh_seed_tells_no_interval(storage: Folder, sweep: Folder) -> None:
    confirmed(sweep, {1: (0.94,), 0: (0.80,)})
    finished(sweep)
    text = tags_of(storage, sweep).words
    assert "One training with a fresh seed: no interval can be told." in text
    assert "too few seeds" in text


def test_a_picked_score_is_said_to_be_too_good(storage: Folder, sweep: Folder) -> None:
    finished(sweep)
    text = tags_of(storage, sweep).words
    assert "one training, picked as the best of 2 that finished, so it is too good" in text
    assert "not confirmed" in text
    assert "The 2 best of the search" in text
    assert "Leaderboard" not in text


def test_the_test_split_is_said_to_have_been_looked_at_once(storage: Folder, sweep: Folder) -> None:
    confirmed(sweep, CLEAR)
    metrics = {"accuracy": 0.93, "f1": 0.92, "f1_macro": 0.92, "roc_auc": None}
    finished(sweep, test={"trial": 4, "metrics": metrics, "intervals": {"accuracy": [0.9, 0.95]}})
    text = tags_of(storage, sweep).words
    assert re.search(r"accuracy 0\.9300 0\.9000 to 0\.9500 F1 macro 0\.9200", text)
    assert "looked at once, after the winner was known" in text


@pytest.mark.parametrize("stage", ["begun", "searching", "confirming", "nothing finished"])
def test_an_unfinished_sweep_gives_a_report(storage: Folder, stage: str) -> None:
    folder = sweep_in(storage / "sweep")
    trial_in(folder, 9, BEST[0], [], state="running")
    if stage in ("searching", "confirming"):
        searched(folder)
    if stage == "confirming":
        confirmed(folder, {1: (0.94,)}, first=10)
    if stage == "nothing finished":
        trial_in(folder, 0, BEST[0], [], state="failed", reason="out of memory")
    told = {
        "begun": "No trial has finished yet",
        "searching": "Best so far: trial 1, val F1 0.9500",
        "confirming": "3, as many as 1 full training, in 1 trial",
        "nothing finished": "out of memory",
    }
    tags = tags_of(storage, folder)
    assert told[stage] in tags.words
    assert "The sweep has not finished: 1 trial not ended." in tags.words
    assert "best.yaml" not in tags.words
    assert "sweep" in tags.sections


@pytest.mark.parametrize("is_there", [True, False])
def test_a_run_shows_the_sweep_that_its_values_come_from(storage: Folder, sweep: Folder, is_there: bool) -> None:
    confirmed(sweep, CLOSE)
    finished(sweep)
    run = run_in(storage / "run", history=HISTORY)
    judged(run, dataset_in(storage / "dataset"))
    runs.put_json(run, runs.SWEEP, {"sweep": str(sweep)})
    if not is_there:
        storage.delete("sweep")
    tags = tags_of(storage, run)
    assert tags.sections[1:3] == ["sweep", "training"]
    assert f"The values of this run come from the sweep in {sweep}" in tags.words
    assert ("which is not there any more" in tags.words) != is_there
    assert ("It may be chance" in tags.words) == is_there
    assert "83.3% of 12 test images" in tags.words
    assert storage.exists("out/MODEL_CARD.md")


def test_a_run_of_a_job_that_has_a_sweep_stays_a_run(storage: Folder) -> None:
    run = run_in(storage / "run", JOB | {"sweep": {"space": SPACE}}, HISTORY)
    assert "Training has not finished" in tags_of(storage, run).words


def test_a_sweep_stands_beside_a_run(storage: Folder, sweep: Folder) -> None:
    finished(sweep)
    run = run_in(storage / "run", history=HISTORY)
    judged(run, dataset_in(storage / "dataset"))
    assert "2 runs compared" in tags_of(storage, sweep, run).words


def test_how_to_reproduce_names_what_the_sweep_left(storage: Folder, sweep: Folder) -> None:
    finished(sweep)
    text = tags_of(storage, sweep).words
    assert "startup-ray sweep job.yaml" in text
    assert f"startup-ray train {sweep}/best.yaml" in text
    assert f"optuna-dashboard sqlite:///{sweep}/optuna.sqlite3" in text


def test_the_page_asks_no_network_and_hostile_names_stay_text(storage: Folder) -> None:
    space = SPACE | {"training.optimizer": f"choice({', '.join(repr(name) for name in ('adam', 'sgd'))})"}
    folder = sweep_in(storage / "sweep", space=space, dataset=dataset_in(storage / "dataset", EVIL))
    for i, evil in enumerate(EVIL):
        trial_in(folder, i, BEST[0] | {"training.optimizer": evil, evil: [evil]}, [0.5, 0.6, 0.7 + i / 10])
        trial_in(folder, 10 + i, BEST[0], [0.1], state="failed", reason=f"{evil} https://host/a?token=hunter2")
    finished(folder, importance={EVIL[0]: 1.0}, test={"trial": EVIL[0], "metrics": {EVIL[1]: 0.5}})
    tags = tags_of(storage, folder)
    assert not {tag for tag, _ in tags.found} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, given in tags.found:
        assert not [name for name in given if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            assert given.get(name, "#").startswith(("#", "data:")), tag
    for name in EVIL:
        assert name in tags.text
    assert "hunter2" not in storage.read("out/report.html").decode()
    ids = [given["id"] for _, given in tags.found if "id" in given]
    assert len(ids) == len(set(ids))


def test_secrets_of_searched_values_do_not_leave_the_journal(storage: Folder) -> None:
    secrets = [f"https://user:hunter{i}@host/weights{i}.h5" for i in (2, 3)]
    space = {"training.init_from": f"choice({', '.join(repr(one) for one in secrets)})"}
    folder = sweep_in(storage / "sweep", space=space, confirm=0)
    for i, secret in enumerate(secrets):
        trial_in(folder, i, {"training.init_from": secret}, [0.5, 0.6, 0.7])
    finished(folder)
    tags = tags_of(storage, folder)
    assert "hunter" not in storage.read("out/report.html").decode()
    assert "https://host/weights2.h5" in tags.text


def test_a_job_of_another_version_is_read_by_what_its_trials_are(storage: Folder, sweep: Folder) -> None:
    finished(sweep)
    text = sweep.read(runs.JOB).decode() + "of_tomorrow: 1\n"
    sweep.put_whole(runs.JOB, text.encode())
    found = known(sweep)
    assert found.options is None
    assert {axis.key: axis.kind for axis in found.axes} == {
        "training.learning_rate": "uniform",
        "training.optimizer": "choice",
        "training.optimizer_args.momentum": "uniform",
        "model.filters": "choice",
        "model.dense": "uniform",
    }
    assert "Trial 1 is the best of 4: val F1 0.9500" in tags_of(storage, sweep).words


@pytest.mark.ray
def test_a_long_table_is_folded_and_many_lines_are_a_sample(storage: Folder) -> None:
    folder = sweep_in(storage / "sweep", confirm=0)
    many(folder, MAX_LINES + 50)
    finished(folder)
    found = known(folder)
    drawn = {trial.number for trial in chosen(found)}
    assert len(drawn) == MAX_LINES
    assert {trial.number for trial in found.ranked[:50]} <= drawn
    tags = tags_of(storage, folder)
    assert "300 of 350 trials: the best and a sample of the others." in tags.words
    assert "All 350 trials: what each cost and gave" in tags.words
    assert MAX_ROWS < 350


def test_a_view_of_a_sweep_has_no_training(sweep: Folder) -> None:
    finished(sweep)
    view = read_views([sweep], max_mistakes=1)[0]
    assert view.is_sweep
    assert view.train == {}
