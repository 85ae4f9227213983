"""GANs by real workers: the same laws as for classifiers, and the commands from images to samples."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.job import GanOptions, TrainingOptions
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint
from tests.fakes import make_dataset, patterns
from tests.ray.desk import Desk
from tests.ray.training import MARKS, Killer, fit, results

pytestmark = MARKS

JOB = Path(__file__).parents[2] / "jobs" / "digits-gan.yaml"
MODEL = GanOptions(width=4, noise=6, conditional=True, watch_every_epochs=2, watch_samples=300)
TRAINING = TrainingOptions(epochs=6, global_batch=35, steps_per_call=2, checkpoint_every_steps=4)
STEPS = 6 * (209 // 35)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    images, names = patterns(300)
    labels: list[str | None] = [None if i % 20 == 0 else name for i, name in enumerate(names)]
    splits = ["train"] * 220 + ["val"] * 40 + ["test"] * 40
    return make_dataset(Folder(str(tmp_path_factory.mktemp("data"))), images, labels, splits)


@pytest.mark.soak  # what a GAN's checkpoint holds is held by tests/trainers/gan/test_program.py
def test_a_killed_worker_changes_no_bit(dataset: Dataset, tmp_path: Path) -> None:
    folders = [Folder(str(tmp_path / name)) for name in ("never", "killed")]
    never = fit(dataset, folders[0], model=MODEL, training=TRAINING)
    killer = Killer([(1, signal.SIGKILL)], after=STEPS // 2)
    killed = fit(dataset, folders[1], model=MODEL, training=TRAINING, max_failures=1, on_progress=killer)
    assert killer.struck
    assert never["steps"] == killed["steps"] == STEPS
    assert killed["weights_digest"] == never["weights_digest"]
    assert results(folders[1]) == results(folders[0])
    state = checkpoint.newest(folders[0], note=pytest.fail)
    assert state is not None
    looked = [line for line in results(folders[0]) if "val/fid" in line]
    assert [line["epoch"] for line in looked] == [2, 4, 6]
    assert folders[0].list("samples") == ["000002.png", "000004.png", "000006.png"]
    best = min(looked, key=lambda line: line["val/fid"])
    assert state.best["epoch"] == best["epoch"] == never["best_epoch"]


@pytest.mark.soak
def test_any_worker_count_equals_one_worker(dataset: Dataset, tmp_path: Path) -> None:
    folders = [Folder(str(tmp_path / str(workers))) for workers in (1, 2, 3)]
    for workers, folder in enumerate(folders, 1):
        fit(dataset, folder, model=MODEL, training=TRAINING, workers=workers)
    states = [checkpoint.newest(folder, note=pytest.fail) for folder in folders]
    for folder, state in zip(folders[1:], states[1:], strict=True):
        for line, other in zip(results(folder), results(folders[0]), strict=True):
            assert line["train/d_loss"] == pytest.approx(other["train/d_loss"], rel=1e-2, abs=1e-3)
        assert state is not None
        assert states[0] is not None
        for one, two in zip(state.arrays, states[0].arrays, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-2)


@pytest.mark.soak
def test_images_without_labels_are_trained_on_as_well(tmp_path: Path) -> None:
    images, _ = patterns(80)
    nameless = make_dataset(Folder(str(tmp_path / "data")), images, [None] * 80, ["train"] * 70 + ["val"] * 10)
    training = TrainingOptions(epochs=2, global_batch=35)
    model = MODEL.model_copy(update={"conditional": False})
    found = fit(nameless, Folder(str(tmp_path / "run")), model=model, training=training)
    assert found["steps"] == 4
    assert not [name for name in found["metrics"] if name.startswith("val/")]  # nobody to judge
    with pytest.raises(UsageError, match="no labels"):
        fit(nameless, Folder(str(tmp_path / "other")), model=MODEL, training=training)


def test_from_images_to_samples_by_commands(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    short = ["training.epochs=2", "model.watch_every_epochs=1", "evaluation.samples=200", "evaluation.gates=['fid<=0']"]
    options = [part for option in short for part in ("--set", option)]
    code, document, err = desk.run("run", str(JOB), *options)
    assert code == 6, err  # the gate that no generator meets
    stages = document["stages"]
    assert stages["train"]["kind"] == stages["evaluate"]["kind"] == "gan"
    assert stages["evaluate"]["gates"] == [
        {"gate": "fid<=0", "value": stages["evaluate"]["metrics"]["fid"], "passed": False}
    ]
    assert Path(stages["report"]["report"]).stat().st_size > 10_000
    run = stages["train"]["run"]
    code, sampled, err = desk.run("sample", run, "--count", "5", "--class", "3", "--out", "samples")
    assert code == 0, err
    assert sampled["labels"] == ["3"] * 5
    assert len(list((tmp_path / "samples").iterdir())) == 6
    code, exported, err = desk.run("export", run, "--samples", "8")
    assert code == 0, err
    assert [row["format"] for row in exported["exports"]] == ["keras", "savedmodel", "onnx"]
    code, refused, _ = desk.run("predict", run, "samples")
    assert code == 2
    assert "GAN" in refused["error"]["message"]
