from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.fidelity import Moments, frechet_distance
from startup_ray.gates import GENERATIVE
from startup_ray.job import EvaluationOptions, GanOptions, TrainingOptions
from startup_ray.progress import Progress
from startup_ray.runs import BEST_MODEL, CLASSES, EVALUATION, FEATURES, put_json, read_json
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.gan.evaluation import evaluate_gan, gates_of
from startup_ray.trainers.gan.judge import make_judge, open_judge
from startup_ray.trainers.gan.publish import publish
from startup_ray.trainers.gan.sampling import as_in_training, draw, wanted_images
from tests.fakes import make_dataset, patterns

pytestmark = pytest.mark.ray

SHAPE = (8, 8, 1)
NAMES = ("0", "1", "2")
OPTIONS = EvaluationOptions(samples=300, gates=("fid <= 1e9", "coverage >= 1.1"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    images, labels = patterns(200)
    return make_dataset(Folder(str(tmp_path_factory.mktemp("data"))), images, labels, ["train"] * 150 + ["test"] * 50)


def run_of(folder: Path, *, conditional: bool = True) -> Folder:
    """A run whose generator has the weights of the seed."""
    from startup_ray.trainers.program import Spec, make_program
    from startup_ray.trainers.sync import alone

    spec = Spec(
        image_shape=SHAPE,
        classes=NAMES,
        class_rows=(50, 50, 50),
        model=GanOptions(width=4, noise=6, conditional=conditional),
        training=TrainingOptions(global_batch=10),
        seed=5,
    )
    run = Folder(str(folder))
    put_json(run, CLASSES, list(NAMES))  # type: ignore[arg-type]
    make_program(spec, alone()).model.save(run.path(BEST_MODEL))
    return run


def test_the_document_is_that_of_the_samples(dataset: Dataset, tmp_path: Path) -> None:
    from startup_ray.trainers.scoring import load_model

    run, folder = run_of(tmp_path / "run"), Folder(str(tmp_path / "evaluation"))
    run.put_whole(FEATURES, make_judge(dataset))
    seen: list[Progress] = []
    document = evaluate_gan(run, dataset, folder, options=OPTIONS, seed=7, on_progress=seen.append)
    assert read_json(folder, EVALUATION) == document
    assert document["samples"] == {"generated": 300, "train": 150, "test": 50}
    assert (seen[-1].done, seen[-1].total) == (500, 500)
    assert list(document["metrics"]) == list(GENERATIVE)
    assert all(value is not None for value in document["metrics"].values())
    train = open_split(dataset, "train")
    wanted = wanted_images(7, 300, 6, as_in_training(np.asarray(train.labels), 7))
    judge = open_judge(run, FEATURES, SHAPE)
    features, predicted = judge(draw(load_model(run, BEST_MODEL), wanted, 0, 300))
    real, _ = judge(train.images)
    expected = frechet_distance(Moments.of(features), Moments.of(real))
    assert document["metrics"]["fid"] == pytest.approx(expected, rel=1e-12)
    shares = np.bincount(predicted, minlength=3) / 300
    assert [part["share"] for part in document["modes"]] == pytest.approx(shares.tolist())
    assert document["features"]["accuracy"] > 0.9
    assert document["floor"]["rows"] == 50
    assert document["floor"]["real"]["fid"] < document["floor"]["generated"]["fid"]
    assert [gate["passed"] for gate in document["gates"]] == [True, False]
    assert {"samples.png", "nearest.png"} <= set(folder.list())


def test_the_same_seed_gives_the_same_document(dataset: Dataset, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", conditional=False)
    folder = Folder(str(tmp_path / "evaluation"))
    documents = [evaluate_gan(run, dataset, folder, options=OPTIONS, seed=7) for _ in range(2)]
    assert documents[0] == documents[1]
    assert documents[0]["metrics"]["cas"] is None  # nobody can say what a sample should have been
    assert documents[0]["classes"] == []


def test_without_labels_a_judge_has_to_be_named(tmp_path: Path) -> None:
    images, _ = patterns(60)
    nameless = make_dataset(Folder(str(tmp_path / "data")), images, [None] * 60, ["train"] * 50 + ["test"] * 10)
    run, folder = run_of(tmp_path / "run", conditional=False), Folder(str(tmp_path / "evaluation"))
    with pytest.raises(UsageError, match="no labels") as caught:
        evaluate_gan(run, nameless, folder, options=OPTIONS)
    assert "evaluation.features" in caught.value.hint
    named = make_dataset(Folder(str(tmp_path / "named")), *patterns(60), ["train"] * 60)
    (tmp_path / "judge.keras").write_bytes(make_judge(named))
    options = OPTIONS.model_copy(update={"features": str(tmp_path / "judge.keras")})
    document = evaluate_gan(run, nameless, folder, options=options)
    assert document["modes"] == []
    assert document["metrics"]["fid"] > 0


@pytest.mark.parametrize("gate", ["f1 >= 0.9", "recall[0] >= 0.9", "accuracy.low > 0.5"])
def test_gates_of_classifiers_are_refused(gate: str) -> None:
    with pytest.raises(UsageError, match="a GAN has no such metric"):
        gates_of(EvaluationOptions(gates=(gate,)))


def test_gates_of_gans_are_refused_for_classifiers(dataset: Dataset) -> None:
    from startup_ray.evaluate import preflight

    with pytest.raises(UsageError, match="a classifier has no such metric"):
        preflight(dataset, NAMES, EvaluationOptions(gates=("fid <= 3",)))


def test_samples_are_files_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    documents = [publish(run, Folder(str(tmp_path / name)), count=7, seed=3) for name in ("a", "b")]
    assert documents[0]["files"] == [f"{i:06d}.png" for i in range(7)]
    assert documents[0]["labels"] == ["0", "1", "2", "0", "1", "2", "0"]
    for name in (*documents[0]["files"], "grid.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    one = publish(run, Folder(str(tmp_path / "c")), count=2, label="2")
    assert one["labels"] == ["2", "2"]


@pytest.mark.parametrize(
    ("conditional", "asked", "told"),
    [
        (True, {"label": "9"}, "no class is called '9'"),
        (False, {"label": "0"}, "not asked for a class"),
        (False, {"count": 0}, "at least one image"),
    ],
)
def test_what_cannot_be_sampled_is_told(conditional: bool, asked: dict[str, Any], told: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", conditional=conditional)
    with pytest.raises(UsageError, match=told):
        publish(run, Folder(str(tmp_path / "out")), **{"count": 3, **asked})
