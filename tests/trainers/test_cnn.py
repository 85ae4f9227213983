"""The program, the loop and the transport in one process; TensorFlow is imported only when a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.errors import UsageError
from startup_ray.job import AugmentOptions, CnnOptions, PythonOptions, TrainingOptions
from startup_ray.trainers import loop
from startup_ray.trainers.feed import Feed, places_of, share
from startup_ray.trainers.loop import START, Hooks, Plan, Position
from startup_ray.trainers.program import Spec
from startup_ray.usercode import Code, locate
from tests.fakes import patterns
from tests.trainers.world import Member, Spy, Together

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Images:
    """Stands in for `Rows`."""

    images: np.ndarray
    labels: np.ndarray


SHAPE = (8, 8, 1)
MODEL = CnnOptions(filters=(4,), dense=8)
RICH_MODEL = MODEL.model_copy(update={"batch_norm": True, "l2": 1e-3})
OPTIONS = TrainingOptions(global_batch=10, learning_rate=0.01)
AUGMENT = AugmentOptions(flip=True, shift=0.1, rotate_deg=10, zoom=0.1, contrast=0.2)
RICH = OPTIONS.model_copy(
    update={"schedule": "cosine", "warmup_steps": 3, "clip_norm": 0.5, "ema": 0.8, "augment": AUGMENT}
)
STEPS = 18
"""Two epochs of the 95 rows."""


@pytest.fixture(scope="module", autouse=True)
def _deterministic() -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def program(*, sync: Any = None, **options: Any) -> Any:
    from startup_ray.trainers.program import make_program
    from startup_ray.trainers.sync import alone

    return make_program(spec(**options), sync or alone())


def spec(*, model: Any = MODEL, training: TrainingOptions = OPTIONS, code: Code | None = None) -> Spec:
    """Of two epochs of the 95 rows."""
    return Spec(
        image_shape=SHAPE,
        classes=("0", "1", "2"),
        class_rows=(30, 31, 34),
        model=model,
        training=training.model_copy(update={"epochs": 2}),
        seed=5,
        code=code,
    )


def data(rows: int = 95) -> tuple[np.ndarray, np.ndarray]:
    images, labels = patterns(rows)
    return images[..., None], np.array(labels, np.int32)


def train(k: int, *, start: Position = START, arrays: Any = None, **options: Any) -> tuple[str, list[Any]]:
    """Digest after two epochs of nine steps, and what was saved on the way."""
    images, labels = data()
    parts = options.get("training", OPTIONS).accumulate
    feed = Feed(images=images, labels=labels, global_batch=10, seed=1, rank=0, world=1, parts=parts)
    plan = Plan(steps=STEPS, steps_per_epoch=feed.steps_per_epoch, steps_per_call=k, checkpoint_every_steps=4)
    the_program = program(**options)
    if arrays:
        the_program.restore(arrays)
    saved: list[Any] = []
    hooks = Hooks(
        on_chunk=lambda *_: None,
        on_epoch=lambda _: None,
        on_save=lambda position: saved.append((position, the_program.arrays(), the_program.weights_digest())),
    )
    steps = loop.many_steps(the_program.train_step, feed.rows, SHAPE, the_program.sums)
    loop.run(start, steps, feed.batches(loop.chunks(plan, start.step)), hooks)
    assert steps.experimental_get_tracing_count() == 1
    return the_program.weights_digest(), saved


def training_with(**update: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({**OPTIONS.model_dump(exclude_defaults=True), **update})


def own(build: str, **args: Any) -> dict[str, Any]:
    """A user's own model, whose optimizer it decides itself if it is compiled."""
    model = PythonOptions(build=f"tests.nets:{build}", args=args)
    return {"model": model, "training": TrainingOptions(global_batch=10), "code": locate(model.build)}


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "with all options": {"model": RICH_MODEL, "training": RICH},
    "in parts": {
        "model": RICH_MODEL,
        "training": training_with(accumulate=2, augment=AUGMENT.model_dump(), clip_norm=0.5),
    },
    "sgd, in steps": {
        "training": training_with(
            optimizer="sgd",
            optimizer_args={"momentum": 0.9, "nesterov": True},
            learning_rate=0.05,
            schedule="step",
            decay_epochs=1,
            weight_decay=1e-3,
        )
    },
    "weighted and smoothed": {
        "training": training_with(optimizer="adamw", class_weights={"0": 2.0, "2": 0.5}, label_smoothing=0.1)
    },
    "balanced rmsprop": {"training": training_with(optimizer="rmsprop", class_weights="balanced")},
    "bfloat16": {"model": RICH_MODEL, "training": training_with(precision="mixed_bfloat16")},
    "float16": {"model": RICH_MODEL, "training": training_with(precision="mixed_float16", ema=0.8)},
    "xla": own("plain") | {"training": training_with(xla=True)},
    "residual": {"model": RICH_MODEL.model_copy(update={"residual": True, "dense": 0})},
    "frozen": {"model": RICH_MODEL, "training": training_with(freeze=["conv2d*", "batch_norm*"])},
    "own, compiled": own("small_resnet"),
    "own, one-hot": own("one_hot"),
    "own, subclassed": own("subclassed"),
}
"""Each with what the laws must hold for."""


@pytest.fixture(params=CASES)
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    import keras

    yield dict(CASES[request.param])
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def with_dropout(options: dict[str, Any]) -> dict[str, Any]:
    """The law of resuming holds for dropout too."""
    model = options.get("model")
    return options | ({"model": model.model_copy(update={"dropout": 0.4})} if model is RICH_MODEL else {})


def test_steps_per_call_changes_no_bit_and_traces_once(with_dropout: dict[str, Any]) -> None:
    results = {k: train(k, **with_dropout) for k in (1, 7, 16)}
    assert len({digest for digest, _ in results.values()}) == 1
    positions = [[position for position, _, _ in saved] for _, saved in results.values()]
    assert positions[0] == positions[1] == positions[2]
    assert results[1][1][0][2] != results[1][0]  # weights did change on the way


def test_resumed_from_any_checkpoint_is_never_stopped(with_dropout: dict[str, Any]) -> None:
    digest, saved = train(7, **with_dropout)
    middle = [entry for entry in saved if entry[0].sums]
    assert middle
    for position, arrays, _ in middle[:: len(middle) - 1]:
        resumed, rest = train(7, start=position, arrays=arrays, **with_dropout)
        assert resumed == digest
        assert [entry[0] for entry in rest] == [entry[0] for entry in saved if entry[0].step > position.step]
        assert all((mine == other).all() for mine, other in zip(rest[-1][1], saved[-1][1], strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_slices_of_any_length_add_up_to_the_whole_batch(world: int) -> None:
    """Replicas played one after the other: their packed vectors sum to that of one replica."""
    images, labels = data(10)

    def sent(rank: int, world: int) -> np.ndarray:
        spy = Spy(rank=rank, world=world)
        rows = slice(*share(10, rank, world))
        augmented = OPTIONS.model_copy(update={"augment": AUGMENT})
        the_program = program(sync=spy, model=MODEL.model_copy(update={"l2": 0.01}), training=augmented)
        the_program.train_step(images[rows], labels[rows], 3)
        return spy.sent[0]

    whole, parts = sent(0, 1), [sent(rank, world) for rank in range(world)]
    np.testing.assert_allclose(sum(parts), whole, rtol=2e-5, atol=1e-6)
    assert abs(parts[0] - whole).max() > 1e-3


def in_threads(world: int, **options: Any) -> list[tuple[list[np.ndarray], list[float]]]:
    """Per worker its state after `STEPS` steps, and the sums of all workers on the way."""
    images, labels = data()
    together = Together(world)
    programs = [program(sync=Member(rank, together), **options) for rank in range(world)]

    def one(rank: int) -> tuple[list[np.ndarray], list[float]]:
        sums: list[float] = []
        places = places_of(10, rank, world, programs[rank].accumulate)
        for step in range(STEPS):
            rows = step % 9 * 10 + places
            own = programs[rank].train_step(images[rows], labels[rows], step)
            sums += together.sum(rank, own).numpy().tolist()
        return programs[rank].arrays(), sums

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


NEAR = {"bfloat16": (0.1, 0.5)}
"""Of metrics, and of weights: gradients in 16 bits are rounded per worker, and Adam makes steps of small ones."""


def test_any_worker_count_equals_one_worker(options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Also at shares 3/3/4, with moments of the whole batch, and a gradient that flows through them."""
    case = request.node.callspec.id
    if case == "own, subclassed":
        options["model"] = PythonOptions(
            build="tests.nets:subclassed", args={"rate": 0.0}
        )  # each draws its own dropout
    near, near_weights = NEAR.get(case, (2e-4, 2e-4))
    ((alone, sums),) = in_threads(1, **options)
    losses = sums[:: len(sums) // STEPS]
    assert np.mean(losses[9:]) < np.mean(losses[:9])
    for world in (2, 3) if case == "with all options" else (3,):
        workers = in_threads(world, **options)
        for arrays, theirs in workers:
            assert all((mine == first).all() for mine, first in zip(arrays, workers[0][0], strict=True))
            if case == "float16":  # which steps overflow, and are left out, depends on the rows of a worker
                assert np.mean(theirs[len(sums) // 2 :: 2]) == pytest.approx(np.mean(losses[9:]), rel=0.2)
                continue
            assert theirs == pytest.approx(sums, rel=near, abs=10 * near if near > 1e-3 else 1e-4)
            for mine, other in zip(arrays, alone, strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-3, atol=near_weights)


def test_whether_xla_can_compile_is_tried_without_a_trace() -> None:
    options = [TrainingOptions(global_batch=10, xla=xla) for xla in (True, False)]
    found = [program(**own("small_resnet") | {"training": training}) for training in options]
    assert [one.xla for one in found] == [True, False]
    assert found[0].weights_digest() == found[1].weights_digest()


def test_xla_is_refused_for_workers_that_add_up_within_a_pass() -> None:
    from startup_ray.trainers.program import make_program
    from startup_ray.trainers.sync import alone

    of_two = replace(spec(**own("small_resnet") | {"training": TrainingOptions(global_batch=10, xla=True)}), workers=2)
    with pytest.raises(UsageError, match="workers add up within a pass"):
        make_program(of_two, alone())


def test_what_xla_cannot_compile_is_told() -> None:
    with pytest.raises(UsageError, match=r"xla cannot compile this model: .*MaxPool gradient"):
        program(training=training_with(xla=True))


def test_two_workers_two_steps_and_two_layers_never_draw_the_same_mask() -> None:
    import tensorflow as tf

    model = RICH_MODEL.model_copy(update={"dropout": 0.5})
    seen = set()
    for rank in (0, 1):
        the_program = program(sync=Spy(rank=rank, world=2), model=model)
        (layer,) = [layer for layer in the_program.model.layers if layer.name.startswith("dropout")]
        for step in (0, 1, 2**33):
            the_program._seed_dropout(tf.constant(step, tf.int64), 0)
            mask = np.asarray(layer(np.ones((1, 256), np.float32), training=True)) > 0
            assert 0.3 < mask.mean() < 0.7
            seen.add(mask.tobytes())
    assert len(seen) == 6


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back() -> None:
    the_program = program(training=OPTIONS.model_copy(update={"ema": 0.5}))
    images, labels = data(10)
    history = []
    for step in range(3):
        the_program.train_step(images, labels, step)
        history.append([np.asarray(weight) for weight in the_program.model.trainable_variables])
    before = the_program.weights_digest()
    with the_program.averaged():
        averages = [np.asarray(weight) for weight in the_program.model.trainable_variables]
    assert the_program.weights_digest() == before
    for average, (first, second, third) in zip(averages, zip(*history, strict=True), strict=True):
        np.testing.assert_allclose(average, 0.25 * first + 0.25 * second + 0.5 * third, rtol=1e-5, atol=1e-7)
    assert abs(averages[0] - history[-1][0]).max() > 1e-4


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
    from startup_ray.trainers.validation import Validation

    images, labels = data(1100)  # five batches, the last one short
    rows: Any = Images(images, np.where(np.arange(1100) % 7, labels, -1))
    whole = _totals(rows, world=1)[0]
    assert whole[:-1].sum() == (rows.labels >= 0).sum()
    for world in (2, 3, 7):
        assert (np.sum(_totals(rows, world=world), axis=0) == whole).all()
    values = Validation(program(), rows, SHAPE)(1).scores
    confusion = whole[:-1].reshape(3, 3)
    assert values["val/accuracy"] == np.trace(confusion) / confusion.sum()


def _totals(rows: Any, *, world: int) -> list[np.ndarray]:
    """What each worker of a world adds."""
    from startup_ray.trainers.validation import Validation

    spies = [Spy(rank=rank, world=world) for rank in range(world)]
    for spy in spies:
        Validation(program(sync=spy), rows, SHAPE)(1)
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
