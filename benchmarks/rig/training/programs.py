"""What a worker process does when it is told to train: so many calls of some steps each, on rows that never change.

train = PROGRAMS[spec.program](spec)
train.calls(3)                      # 3 * steps_per_call steps
train.weights()                     # the same on all workers, if they synchronise
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rig.training import nets
from rig.training.case import CLASSES, LEARNING_RATE, NETS, Spec
from startup_ray.job import PythonOptions, TrainingOptions
from startup_ray.trainers import loop, program
from startup_ray.trainers.loop import Chunk, Hooks
from startup_ray.trainers.sync import alone, connect
from startup_ray.usercode import locate

HOOKS = Hooks(on_chunk=lambda *_: None, on_epoch=lambda _: None, on_save=lambda _: None)


@dataclasses.dataclass(frozen=True)
class Train:
    calls: Callable[[int], Any]
    model: Any

    def weights(self) -> str:
        """Hex digest of all weights."""
        return hashlib.sha256(b"".join(np.asarray(weight).tobytes() for weight in self.model.weights)).hexdigest()


def startup_ray_loop(spec: Spec) -> Train:
    """The loop and the step of production, op determinism on."""
    tf.config.experimental.enable_op_determinism()
    sync = connect(world=spec.world, rank=spec.rank, **spec.connect) if spec.world > 1 else alone()
    net = NETS[spec.case.net]
    options = TrainingOptions(
        global_batch=spec.case.batch * spec.world,
        learning_rate=LEARNING_RATE,
        steps_per_call=net.steps_per_call,
        **spec.training,
    )
    wanted = program.Spec(
        image_shape=net.shape,
        classes=tuple(map(str, range(CLASSES))),
        class_rows=(net.rows,) * CLASSES,
        model=PythonOptions(build=nets.FOR_JOB, args={"name": spec.case.net}),
        training=options,
        seed=0,
        code=locate(nets.FOR_JOB),
    )
    made = program.make_program(wanted, sync)
    return Train(_looped(spec, made.train_step, made.sums, sync.sum), made.model)


def strategy_scope(spec: Spec) -> Train:
    """Keras 3 in the scope of a strategy, whose replicas reduce and apply gradients, in the same outer loop."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model, optimizer = nets.build(spec.case.net, keras), keras.optimizers.Adam(LEARNING_RATE)
        optimizer.build(model.trainable_variables)
    global_batch = spec.case.batch * spec.world

    def replica_step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, tf.float32), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) / global_batch
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)  # which sums them over the replicas
        hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
        return tf.stack([loss, tf.reduce_sum(tf.cast(hits, tf.float32))])

    # The replica's own sums: another all-reduce only to tell of them would cost it speed.
    return Train(_looped(spec, lambda images, labels, _: strategy.run(replica_step, args=(images, labels)), 2), model)


def keras_fit(spec: Spec) -> Train:
    """`model.fit` on one batch again and again, as many steps per execution as the others have per call."""
    keras.utils.set_random_seed(0)
    model = nets.build(spec.case.net, keras)
    steps_per_call = NETS[spec.case.net].steps_per_call
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_call,
    )
    images, labels = _rows(spec)
    batch = tf.data.Dataset.from_tensors((images[0], labels[0])).repeat()
    return Train(
        lambda calls: model.fit(batch, steps_per_epoch=calls * steps_per_call, shuffle=False, verbose=0), model
    )


PROGRAMS: dict[str, Callable[[Spec], Train]] = {
    "loop": startup_ray_loop,
    "scope": strategy_scope,
    "fit": keras_fit,
}


def _looped(spec: Spec, step: Callable[[Any, Any, Any], Any], sums: int, *add_up: Any) -> Callable[[int], Any]:
    """Calls of `loop.many_steps` by `loop.run`."""
    net = NETS[spec.case.net]
    steps = loop.many_steps(step, spec.case.batch, net.shape, sums, *add_up)
    rows = _rows(spec)

    def batches(calls: int) -> Iterator[tuple[Chunk, Any, Any]]:
        for call in range(calls):
            first = call * net.steps_per_call
            yield Chunk(epoch=0, first=first, count=net.steps_per_call, ends_epoch=False, saves=False), *rows

    return lambda calls: loop.run(loop.START, steps, batches(calls), HOOKS)


def _rows(spec: Spec) -> tuple[Any, Any]:
    """Images uint8 [steps, batch, H, W, C] and labels int32 [steps, batch] of one call, others on each worker."""
    net = NETS[spec.case.net]
    rng = np.random.default_rng(spec.rank)
    shape = (net.steps_per_call, spec.case.batch)
    images = rng.integers(0, 256, (*shape, *net.shape), np.uint8)
    return tf.constant(images), tf.constant(rng.integers(0, CLASSES, shape).astype(np.int32))
