"""The laws of the classifier, for a pair of networks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from startup_ray.errors import StorageError, TrainingError
from startup_ray.job import GanOptions, TrainingOptions
from startup_ray.trainers import loop
from startup_ray.trainers.feed import Feed, places_of
from startup_ray.trainers.loop import START, Hooks, Plan, Position
from startup_ray.trainers.program import Spec
from tests.fakes import patterns
from tests.trainers.world import Member, Spy, Together

pytestmark = pytest.mark.ray

SHAPE = (8, 8, 1)
TRAINING = TrainingOptions(global_batch=10, epochs=2, schedule="cosine", warmup_steps=3, clip_norm=5.0)
STEPS = 18
CASES = {
    "r3gan": GanOptions(width=4, noise=6),
    "r3gan, conditional": GanOptions(width=4, noise=6, conditional=True, augment=("shift", "cutout", "color")),
    "dcgan": GanOptions(recipe="dcgan", width=4, noise=6),
    "dcgan, conditional": GanOptions(recipe="dcgan", width=4, noise=6, conditional=True, augment=("shift",)),
}


@pytest.fixture(params=CASES)
def options(request: pytest.FixtureRequest) -> GanOptions:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    return CASES[request.param]


def program(options: GanOptions, sync: Any = None) -> Any:
    from startup_ray.trainers.program import make_program
    from startup_ray.trainers.sync import alone

    spec = Spec(
        image_shape=SHAPE, classes=("0", "1", "2"), class_rows=(30, 31, 34), model=options, training=TRAINING, seed=5
    )
    return make_program(spec, sync or alone())


def data(rows: int = 95) -> tuple[np.ndarray, np.ndarray]:
    images, labels = patterns(rows)
    return images[..., None], np.array(labels, np.int32)


def train(options: GanOptions, k: int, *, start: Position = START, arrays: Any = None) -> tuple[str, list[Any]]:
    """Digest after two epochs of nine steps, and what was saved on the way."""
    images, labels = data()
    feed = Feed(images=images, labels=labels, global_batch=10, seed=1, rank=0, world=1, takes_unlabelled=True)
    plan = Plan(steps=STEPS, steps_per_epoch=feed.steps_per_epoch, steps_per_call=k, checkpoint_every_steps=4)
    the_program = program(options)
    if arrays:
        the_program.restore(arrays)
    saved: list[Any] = []
    hooks = Hooks(
        on_chunk=lambda *_: None,
        on_epoch=lambda _: None,
        on_save=lambda position: saved.append((position, the_program.arrays())),
    )
    steps = loop.many_steps(the_program.train_step, feed.rows, SHAPE, the_program.sums)
    loop.run(start, steps, feed.batches(loop.chunks(plan, start.step)), hooks)
    return the_program.weights_digest(), saved


def test_resumed_from_any_checkpoint_is_never_stopped(options: GanOptions) -> None:
    digest, saved = train(options, 7)
    assert train(options, 1)[0] == digest
    for position, arrays in saved[:-1:2]:
        resumed, rest = train(options, 7, start=position, arrays=arrays)
        assert resumed == digest
        assert all((mine == other).all() for mine, other in zip(rest[-1][1], saved[-1][1], strict=True))


def test_a_pair_that_diverges_is_told() -> None:
    with pytest.raises(TrainingError, match="diverged: the loss of step"):
        train(CASES["r3gan"].model_copy(update={"learning_rate": 1e18}), 7)


def in_threads(options: GanOptions, world: int) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Per worker its state after some steps, and the sums of all workers on the way."""
    images, labels = data()
    together = Together(world)
    programs = [program(options, Member(rank, together)) for rank in range(world)]

    def one(rank: int) -> tuple[list[np.ndarray], np.ndarray]:
        sums = []
        for step in range(9):
            rows = step * 10 + places_of(10, rank, world)
            own = programs[rank].train_step(images[rows], labels[rows], step)
            sums.append(together.sum(rank, own).numpy())
        return programs[rank].arrays(), np.array(sums)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


def test_any_worker_count_equals_one_worker(options: GanOptions) -> None:
    """At shares of 3, 3 and 4 rows; the workers agree bit for bit."""
    ((alone, sums),) = in_threads(options, 1)
    workers = in_threads(options, 3)
    for arrays, theirs in workers:
        assert all((mine == first).all() for mine, first in zip(arrays, workers[0][0], strict=True))
        np.testing.assert_allclose(theirs, sums, rtol=2e-3, atol=2e-4)
        for mine, other in zip(arrays, alone, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-2, atol=1e-3)
    start = program(options).arrays()
    assert any(abs(after - before).max() > 1e-2 for after, before in zip(alone, start, strict=True))


def test_both_networks_share_one_message() -> None:
    images, labels = data(10)
    spy = Spy(rank=0, world=2)
    the_program = program(CASES["r3gan"], spy)
    the_program.train_step(images[:5], labels[:5], 0)
    assert [sent.size for sent in spy.sent] == the_program.messages()


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back(options: GanOptions) -> None:
    images, labels = data(10)
    the_program = program(options)
    for step in range(3):
        the_program.train_step(images, labels, step)
    digest = the_program.weights_digest()
    raw = [np.asarray(weight) for weight in the_program.generator.trainable_variables]
    with the_program.averaged():
        inside = [np.asarray(weight) for weight in the_program.generator.trainable_variables]
        assert all((one == np.asarray(two)).all() for one, two in zip(inside, the_program.average, strict=True))
        assert any((one != two).any() for one, two in zip(inside, raw, strict=True))
    assert the_program.weights_digest() == digest


def test_scores_are_means_and_shares() -> None:
    the_program = program(CASES["r3gan"])
    found = the_program.train_scores([6.0, 4.0, 70.0, 50.0, 1.0, 2.0, 3.0], 10)
    assert found == {
        "train/d_loss": 0.6,
        "train/g_loss": 0.4,
        "train/penalty": 0.1,
        "train/d_real": 0.7,
        "train/d_fake": 0.5,
        "train/d_norm": 0.2,
        "train/g_norm": pytest.approx(0.3),
    }


def test_a_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(StorageError, match="another model"):
        program(CASES["r3gan"]).restore(program(CASES["dcgan"]).arrays())


def test_a_kept_generator_makes_the_same_images(tmp_path: Any) -> None:
    import keras

    the_program = program(CASES["r3gan, conditional"])
    noise = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    inputs = [noise, np.array([0, 1, 2, 0], np.int32)]
    images = np.asarray(the_program.model(inputs))
    assert images.shape == (4, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 255
    the_program.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert (np.asarray(again(inputs)) == images).all()
