"""Users' own models, applications and warm starts on two real workers, by every transport."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.job import ApplicationOptions, ModelOptions, PythonOptions, ScalingOptions, TrainingOptions
from startup_ray.storage import Folder
from startup_ray.trainers.preflight import preflight
from tests.fakes import make_dataset, patterns
from tests.ray.training import LONG, MARKS, MODEL, TRAINING, WITH_DROPOUT, fit, results

pytestmark = MARKS

SHORT = TrainingOptions(epochs=3, global_batch=35, checkpoint_every_steps=100)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Dataset:
    """RGB of the least size that MobileNet takes."""
    images, labels = patterns(120, size=32)
    colour = images[..., None].repeat(3, axis=-1)
    folder = Folder(str(tmp_path_factory.mktemp("larger")))
    return make_dataset(folder, colour, list(labels), ["train"] * 80 + ["val"] * 40)


@pytest.mark.parametrize("build", ["subclassed", pytest.param("small_resnet", marks=pytest.mark.soak)])
def test_a_users_own_model(dataset: Dataset, tmp_path: Path, build: str) -> None:
    model = PythonOptions(build=f"tests.nets:{build}")
    runs = []
    for workers in (2, 1) if build == "small_resnet" else (2,):
        folder = Folder(str(tmp_path / str(workers)))
        document = fit(dataset, folder, model=model, training=SHORT, workers=workers)
        assert document["kind"] == "python"
        runs.append(results(folder))
    first, *_, last = runs[0]
    assert last["train/loss"] < first["train/loss"]
    if build == "small_resnet":
        assert 0 < last["val/top2"] <= 1
        for line, of_one in zip(*runs, strict=True):
            assert line == pytest.approx(of_one, rel=1e-3, abs=1e-4)


@pytest.mark.soak  # the parts of it are held by tests/trainers/test_models.py and test_warm.py
def test_an_application_begins_again_with_the_weights_of_another_run(larger: Dataset, tmp_path: Path) -> None:
    model = ApplicationOptions(name="MobileNet", args={"alpha": 0.25})
    training = TrainingOptions(epochs=2, global_batch=20)
    first = Folder(str(tmp_path / "first"))
    document = fit(larger, first, model=model, training=training)
    assert document["kind"] == "application"
    still = TrainingOptions(epochs=1, global_batch=20, learning_rate=1e-30, init_from=str(first), freeze=("*bn*",))
    second = Folder(str(tmp_path / "second"))
    fit(larger, second, model=model, training=still)
    assert results(second)[0]["val/loss"] == pytest.approx(
        results(first)[document["best_epoch"] - 1]["val/loss"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("model", "update", "told"),
    [
        (PythonOptions(build="tests.nets:bad", args={"fault": "own step"}), {}, "train_step is overridden"),
        (ApplicationOptions(name="MobileNetV2"), {}, "Input size must be at least 32x32"),
        (MODEL, {"optimizer_args": {"momentun": 1}}, "optimizer adam: .*momentun"),
        (MODEL, {"freeze": ("conv9",)}, "no layer is called 'conv9'"),
        (MODEL, {"init_from": "/nowhere/at/all"}, "no model here"),
        (MODEL, {"class_weights": {"9": 1.0}}, "the dataset has no class '9'"),
    ],
)
def test_what_cannot_be_built_is_told_before_a_worker_starts(
    dataset: Dataset, tmp_path: Path, model: ModelOptions, update: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        fit(dataset, Folder(str(tmp_path)), model=model, training=TRAINING.model_copy(update=update))
    assert Folder(str(tmp_path)).list() == []


def test_a_relative_path_means_the_same_in_a_worker_and_is_not_needed_once_begun(
    dataset: Dataset, undisturbed: tuple[dict[str, Any], Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(str(undisturbed[1]), tmp_path / "source")
    monkeypatch.chdir(tmp_path)
    folder = Folder(str(tmp_path / "run"))
    training = SHORT.model_copy(update={"init_from": "source", "epochs": 1, "learning_rate": 1e-30})
    fit(dataset, folder, training=training)
    assert results(folder)[0]["val/loss"] < 0.1 < results(undisturbed[1])[0]["val/loss"]
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(UsageError, match="no model here"):
        preflight(dataset, model=WITH_DROPOUT, training=training, scaling=ScalingOptions(), seed=7)
    spec = preflight(dataset, model=WITH_DROPOUT, training=training, scaling=ScalingOptions(), seed=7, is_begun=True)
    assert spec.training.init_from is None


def test_stopping_early_needs_something_to_judge_by(tmp_path: Path, ray_session: None) -> None:
    images, labels = patterns(40)
    dataset = make_dataset(Folder(str(tmp_path / "data")), images, list(labels), ["train"] * 40)
    with pytest.raises(UsageError, match="early_stopping needs a val split"):
        fit(dataset, Folder(str(tmp_path / "run")), training=SHORT.model_copy(update={"early_stopping": 2}))


def test_tensorflows_ring_gives_the_same_bits_as_shared_memory(
    dataset: Dataset, undisturbed: tuple[dict[str, Any], Folder], tmp_path: Path
) -> None:
    document = fit(dataset, Folder(str(tmp_path)), training=LONG, transport="ring")
    assert document["weights_digest"] == undisturbed[0]["weights_digest"]


@pytest.mark.soak
def test_sixteen_bits_on_the_wire_are_near_and_the_same_on_all(dataset: Dataset, tmp_path: Path) -> None:
    """That all workers hold the same weights is compared at every checkpoint."""
    folders = {wire: Folder(str(tmp_path / wire)) for wire in ("float32", "bfloat16", "float16")}
    for wire, folder in folders.items():
        fit(dataset, folder, model=MODEL, training=SHORT, transport="ring", wire=wire)
    exact = results(folders.pop("float32"))
    for folder in folders.values():
        assert results(folder) != exact
        for line, other in zip(results(folder), exact, strict=True):
            assert line["train/loss"] == pytest.approx(other["train/loss"], rel=0.05)


def test_it_stops_when_it_gets_no_better(dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "startup_ray")
    still = TrainingOptions(epochs=9, global_batch=35, learning_rate=1e-30, early_stopping=2)
    folder = Folder(str(tmp_path))
    net = MODEL.model_copy(update={"batch_norm": False})  # whose moving statistics would make epochs differ
    document = fit(dataset, folder, model=net, training=still)
    assert (document["epochs"], document["best_epoch"], len(results(folder))) == (3, 1, 3)
    assert "no better epoch by val/f1 for 2: stopped after 3" in caplog.text


def test_steps_in_the_place_of_epochs(dataset: Dataset, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    document = fit(dataset, folder, training=TrainingOptions(steps=8, global_batch=35))
    assert (document["steps"], document["epochs"]) == (8, 2)
    assert [line["step"] for line in results(folder)] == [5, 8]
    assert 0 < results(folder)[1]["train/accuracy"] <= 1
