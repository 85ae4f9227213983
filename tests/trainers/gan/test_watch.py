"""What is seen while a GAN trains; generator, judge and data are fakes."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from startup_ray.errors import TrainingError
from startup_ray.job import GanOptions
from startup_ray.trainers.gan.judge import Judge
from startup_ray.trainers.gan.recipes import R3GAN
from startup_ray.trainers.messages import Note
from tests.trainers.world import Member, Together

pytestmark = pytest.mark.ray

SHAPE = (4, 4, 1)
OPTIONS = GanOptions(watch_every_epochs=5, watch_samples=600)
NOISE = 16
RECIPE = replace(R3GAN, noise=NOISE)


@dataclass(frozen=True)
class Rows:
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Generator:
    """Makes its noise into pixels, of less and less variety."""

    spread: float = 1.0

    def __call__(self, noise: np.ndarray, *, training: bool) -> np.ndarray:
        assert not training
        return 128 + 30 * self.spread * noise.reshape(-1, *SHAPE)


@dataclass
class Program:
    sync: Any
    model: Generator
    num_classes: int = 0
    seed: int = 3
    recipe: Any = RECIPE


def pixels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits: first pixels, and a class by the first of them."""
    flat = images.reshape(len(images), -1) / 30
    return flat[:, :4], np.stack([flat[:, 0], np.full(len(flat), 128 / 30)], 1)


def rows(count: int, seed: int) -> Rows:
    noise = np.random.default_rng(seed).standard_normal((count, NOISE))
    images = np.clip(np.round(Generator()(noise, training=False)), 0, 255).astype(np.uint8)
    return Rows(images, np.zeros(count, np.int32))


def watch(
    sync: Any, model: Generator, options: GanOptions = OPTIONS, *, has_judge: bool = True, notes: Any = None
) -> Any:
    from startup_ray.trainers.gan.watch import Watch

    judge = Judge(call=pixels, size=4, num_classes=2) if has_judge else None
    emit = (lambda _: None) if notes is None else notes.append
    return Watch(
        program=Program(sync, model),  # type: ignore[arg-type]
        options=options,
        judge=judge,
        train=rows(700, 1),  # type: ignore[arg-type]
        val=rows(100, 2),  # type: ignore[arg-type]
        epochs=12,
        emit=emit,
    )


def alone() -> Any:
    return Member(0, Together(1))


def test_it_looks_every_so_many_epochs_and_after_the_last() -> None:
    looks = watch(alone(), Generator())
    found = {epoch: looks(epoch) for epoch in (1, 4, 5, 12)}
    assert not found[1].scores
    assert not found[4].files
    scores = found[5].scores
    assert scores.keys() == {"val/fid", "val/coverage", "val/entropy", "val/copies"}
    assert scores["val/fid"] < 0.1  # of the same distribution
    assert scores["val/coverage"] > 0.9
    assert scores["val/copies"] < 0.1
    assert found[12].scores == scores
    picture = Image.open(io.BytesIO(found[5].files["samples/000005.png"]))
    assert picture.size == (10 * 4 + 9 * 2, 8 * 4 + 7 * 2)


def test_without_a_judge_there_are_pictures_alone() -> None:
    found = watch(alone(), Generator(), has_judge=False)(5)
    assert not found.scores
    assert list(found.files) == ["samples/000005.png"]


def test_any_worker_count_finds_the_same() -> None:
    expected = watch(alone(), Generator())(5)

    def one(rank: int, together: Together) -> Any:
        return watch(Member(rank, together), Generator())(5)

    together = Together(3)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(one, range(3), [together] * 3))
    for each in found:
        assert each.scores == expected.scores
    assert [bool(each.files) for each in found] == [True, False, False]
    assert found[0].files == expected.files


@pytest.mark.parametrize("on_alarm", ["warn", "stop"])
def test_samples_that_lose_their_variety_raise_an_alarm(on_alarm: str) -> None:
    notes: list[Note] = []
    model = Generator()
    looks = watch(alone(), model, OPTIONS.model_copy(update={"on_alarm": on_alarm}), notes=notes)
    looks(5)
    assert not notes
    model.spread = 0.05
    if on_alarm == "stop":
        with pytest.raises(TrainingError, match=r"lose their variety.* after epoch 10"):
            looks(10)
        return
    looks(10)
    assert any("lose their variety: val/coverage" in note.text for note in notes)
    assert any("get worse: val/fid" in note.text for note in notes)
    assert all(note.is_warning for note in notes)


def test_copies_of_training_images_raise_an_alarm() -> None:
    notes: list[Note] = []
    looks = watch(alone(), Generator(), notes=notes)
    looks.train = replace(looks.train, images=np.repeat(looks_at(looks), 3, axis=0))
    looks(5)
    assert any("copies of training images" in note.text for note in notes)


def looks_at(looks: Any) -> np.ndarray:
    """The images that it will draw."""
    from startup_ray.trainers.gan.sampling import draw

    return draw(looks.program.model, looks._wanted, 0, 250)
