from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.runs import BEST_MODEL, FEATURES
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.gan.judge import FEATURES as SIZE
from startup_ray.trainers.gan.judge import Judge, make_judge, open_judge, read_judge
from tests.fakes import make_dataset, patterns

pytestmark = pytest.mark.ray

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    images, names = patterns(200)
    labels: list[str | None] = [None if i % 20 == 0 else name for i, name in enumerate(names)]
    return make_dataset(Folder(str(tmp_path_factory.mktemp("data"))), images, labels, ["train"] * 150 + ["test"] * 50)


def opened(tmp_path: Path, data: bytes) -> Judge:
    folder = Folder(str(tmp_path))
    folder.put_whole(FEATURES, data)
    return open_judge(folder, FEATURES, SHAPE)


def test_it_is_trained_on_the_labels_alike_every_time(dataset: Dataset, tmp_path: Path) -> None:
    judges = [opened(tmp_path / str(i), make_judge(dataset)) for i in range(2)]
    rows = open_split(dataset, "test")
    (features, predicted), (again, _) = (judge(rows.images) for judge in judges)
    assert (features == again).all()
    assert features.shape == (50, SIZE)
    assert features.dtype == np.float64
    known = rows.labels >= 0
    assert (predicted == rows.labels)[known].mean() > 0.9
    assert judges[0].num_classes == 3


def test_parts_of_whole_batches_are_judged_alike(dataset: Dataset, tmp_path: Path) -> None:
    judge = opened(tmp_path, make_judge(dataset))
    images = np.random.default_rng(0).integers(0, 256, (600, *SHAPE), np.uint8)
    whole, _ = judge(images)
    assert (np.concatenate([judge(images[:512])[0], judge(images[512:])[0]]) == whole).all()


def test_without_labels_there_is_none(tmp_path: Path) -> None:
    images, _ = patterns(10)
    nameless = make_dataset(Folder(str(tmp_path)), images, [None] * 10, ["train"] * 10)
    assert make_judge(nameless) == b""


def model_in(folder: Folder, shape: tuple[int, int, int], *, has_head: bool) -> str:
    import keras

    keras.utils.set_random_seed(0)
    parts: list[Any] = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(6, activation="relu")]
    parts.append(keras.layers.Dense(4) if has_head else keras.layers.Activation("tanh"))
    path = Path(folder.path(BEST_MODEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    keras.Sequential(parts).save(path)
    return str(path)


@pytest.mark.parametrize("has_head", [True, False])
def test_a_model_of_the_users_own(has_head: bool, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    path = model_in(folder, SHAPE, has_head=has_head)
    for place in (path, str(folder)):
        judge = opened(tmp_path / "judge", read_judge(place, SHAPE))
        assert (judge.size, judge.num_classes) == (6, 4 if has_head else 0)
        features, predicted = judge(np.zeros((3, *SHAPE), np.uint8))
        assert features.shape == (3, 6)
        assert predicted.shape == (3,)


def test_what_cannot_judge_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model here"):
        read_judge(str(tmp_path / "none.keras"), SHAPE)
    path = model_in(Folder(str(tmp_path / "run")), (9, 9, 1), has_head=True)
    with pytest.raises(UsageError, match=r"does not take images of shape \(8, 8, 1\)"):
        read_judge(path, SHAPE)
    with pytest.raises(UsageError, match="no such file"):
        read_judge("inception:nowhere.h5", SHAPE)
    (tmp_path / "weights.h5").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="no weights of InceptionV3"):
        read_judge(f"inception:{tmp_path / 'weights.h5'}", SHAPE)


def test_inception_judges_images_of_any_size(tmp_path: Path) -> None:
    import keras

    path = str(tmp_path / "inception.weights.h5")
    keras.utils.set_random_seed(0)
    keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg").save_weights(path)
    judge = opened(tmp_path, read_judge(f"inception:{path}", SHAPE))
    features, _ = judge(np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8))
    assert features.shape == (2, 2048)
    assert (features[0] != features[1]).any()
