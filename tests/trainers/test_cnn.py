"""The program, the loop and the transport in one process; TensorFlow is imported only when a test runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.job import CnnOptions, TrainingOptions
from startup_ray.trainers import loop
from startup_ray.trainers.feed import Feed
from startup_ray.trainers.loop import START, Hooks, Plan, Position
from tests.fakes import patterns

pytestmark = pytest.mark.ray


@dataclass(kw_only=True)
class Spy:
    """Stands in for `Sync`: keeps what this worker would send and hands it back."""

    rank: int
    world: int
    sent: list[np.ndarray] = field(default_factory=list)

    def sum(self, values: Any) -> Any:
        self.sent.append(values.numpy())
        return values


@dataclass(frozen=True)
class Images:
    """Stands in for `Rows`."""

    images: np.ndarray
    labels: np.ndarray


SHAPE = (8, 8, 1)
OPTIONS = TrainingOptions(global_batch=10, learning_rate=0.01)


@pytest.fixture(scope="module", autouse=True)
def _deterministic() -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def program(*, sync: Any = None) -> Any:
    import keras

    from startup_ray.trainers.cnn import make_classifier
    from startup_ray.trainers.sync import Sync

    keras.utils.set_random_seed(5)
    alone = Sync(rank=0, world=1, strategy=None, options=None)
    return make_classifier(SHAPE, 3, CnnOptions(filters=(4,), dense=8), OPTIONS, sync or alone)


def data(rows: int = 95) -> tuple[np.ndarray, np.ndarray]:
    images, labels = patterns(rows)
    return images[..., None], np.array(labels, np.int32)


def train(k: int, *, start: Position = START, arrays: Any = None) -> tuple[str, list[Any]]:
    """Digest after two epochs of nine steps, and what was saved on the way."""
    images, labels = data()
    feed = Feed(images=images, labels=labels, global_batch=10, seed=1, rank=0, world=1)
    plan = Plan(epochs=2, steps_per_epoch=feed.steps_per_epoch, steps_per_call=k, checkpoint_every_steps=4)
    the_program = program()
    if arrays:
        the_program.restore(arrays)
    saved: list[Any] = []
    hooks = Hooks(
        on_chunk=lambda *_: None,
        on_epoch=lambda _: None,
        on_save=lambda position: saved.append((position, the_program.arrays(), the_program.weights_digest())),
    )
    steps = loop.many_steps(the_program.train_step, feed.rows, SHAPE, sums=2)
    loop.run(start, steps, feed.batches(loop.chunks(plan, start.step)), hooks)
    assert steps.experimental_get_tracing_count() == 1
    return the_program.weights_digest(), saved


def test_steps_per_call_changes_no_bit_and_traces_once() -> None:
    results = {k: train(k) for k in (1, 7, 16)}
    assert len({digest for digest, _ in results.values()}) == 1
    positions = [[position for position, _, _ in saved] for _, saved in results.values()]
    assert positions[0] == positions[1] == positions[2]
    assert results[1][1][0][2] != results[1][0]  # weights did change on the way


def test_resumed_from_any_checkpoint_is_never_stopped() -> None:
    digest, saved = train(7)
    middle = [entry for entry in saved if entry[0].sums]
    assert middle
    for position, arrays, _ in middle:
        resumed, rest = train(7, start=position, arrays=arrays)
        assert resumed == digest
        assert [entry[0] for entry in rest] == [entry[0] for entry in saved if entry[0].step > position.step]


@pytest.mark.parametrize("cut", [5, 3])
def test_slices_of_any_length_add_up_to_the_whole_batch(cut: int) -> None:
    """Two replicas played one after the other: their packed vectors sum to that of one replica."""
    images, labels = data(10)
    spy = Spy(rank=0, world=2)
    for rows in (slice(None), slice(0, cut), slice(cut, None)):
        program(sync=spy).train_step(images[rows], labels[rows])
    whole, first, second = spy.sent
    np.testing.assert_allclose(first + second, whole, rtol=2e-5, atol=1e-7)
    assert abs(first - whole).max() > 1e-3


def test_evaluation_sums_are_integers_that_add_up_exactly() -> None:
    from startup_ray.trainers.cnn import LOSS_SCALE

    images, labels = data(60)
    the_program = program()
    parts = [the_program.eval_step(images[i : i + 20], labels[i : i + 20]).numpy() for i in (0, 20, 40)]
    total = parts[2] + parts[0] + parts[1]
    assert total.dtype == np.int64
    assert total[:-1].sum() == 60
    assert (total[:-1].reshape(3, 3).sum(axis=1) == np.bincount(labels)).all()
    logits = np.asarray(the_program.model(images.astype(np.float32)), np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), labels]
    assert total[-1] / LOSS_SCALE == pytest.approx(losses.sum(), abs=1e-4)


def test_validation_gives_the_same_integers_at_any_worker_count() -> None:
    from startup_ray.trainers.cnn import Validation

    images, labels = data(1100)  # five batches, the last one short
    rows: Any = Images(images, np.where(np.arange(1100) % 7, labels, -1))
    whole = _totals(rows, world=1)[0]
    assert whole[:-1].sum() == (rows.labels >= 0).sum()
    for world in (2, 3, 7):
        assert (np.sum(_totals(rows, world=world), axis=0) == whole).all()
    values = Validation(program(), rows, SHAPE)()
    confusion = whole[:-1].reshape(3, 3)
    assert values["val/accuracy"] == np.trace(confusion) / confusion.sum()


def _totals(rows: Any, *, world: int) -> list[np.ndarray]:
    """What each worker of a world adds."""
    from startup_ray.trainers.cnn import Validation

    spies = [Spy(rank=rank, world=world) for rank in range(world)]
    for spy in spies:
        Validation(program(sync=spy), rows, SHAPE)()
    return [spy.sent[0] for spy in spies]


def test_a_loss_that_is_not_a_number_stays_a_large_integer() -> None:
    images, labels = data(4)
    the_program = program()
    the_program.model.weights[-1].assign(np.full(3, np.nan, np.float32))
    assert the_program.eval_step(images, labels).numpy()[-1] == 4 * int(1e5 * 2**20)
    assert not the_program.is_finite()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # a Keras variable under numpy 2
def test_the_digest_sees_every_weight_and_no_name(tmp_path: Path) -> None:
    import keras

    one, other = program(), program()
    assert [w.path for w in one.model.weights] != [w.path for w in other.model.weights]
    assert one.weights_digest() == other.weights_digest()
    one.model.save(tmp_path / "model.keras")
    loaded = replace(one, model=keras.models.load_model(tmp_path / "model.keras"))
    assert loaded.weights_digest() == one.weights_digest()
    other.model.weights[-1].assign(np.array([0, 0, 1e-7], np.float32))
    assert other.weights_digest() != one.weights_digest()


def test_a_checkpoint_of_another_model_is_refused() -> None:
    from startup_ray.errors import StorageError

    with pytest.raises(StorageError, match="another model"):
        program().restore([np.zeros(3)])
