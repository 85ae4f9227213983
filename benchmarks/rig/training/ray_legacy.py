"""Ray's documented example of `TensorflowTrainer`, with our nets: legacy Keras, `model.fit` on a tf.data pipeline.

    PYTHON -m rig.training.ray_legacy SPEC SECONDS FIFO     # in the environment of benchmarks/ray-legacy.txt

After https://docs.ray.io/en/latest/train/distributed-tensorflow-keras.html. The
optimizer is Adam, as with the others; to its advantage nothing is reported or saved inside the window.
"""

from __future__ import annotations

import math
import os
import sys
import time
from functools import partial
from typing import Any

PINNED, AS_DOCUMENTED = "fit-pinned", "fit-as-documented"
"""Programs: with one core and one thread for each worker, or with what TensorFlow takes by itself."""
WARM_STEPS = 8
EPOCHS = 3
"""Of the window, whose pipeline has been filled in an epoch before."""
LEGACY = {
    "TF_USE_LEGACY_KERAS": "1",  # before anything imports TensorFlow: what Ray sets itself comes too late
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "-1",
}


def main() -> None:
    os.environ.update(LEGACY)
    import ray
    from ray.train import ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    from rig.training.case import WORKERS

    ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": LEGACY})
    config = {"spec": sys.argv[1], "seconds": float(sys.argv[2]), "fifo": sys.argv[3]}
    trainer = TensorflowTrainer(
        train_loop_per_worker=train_func,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=WORKERS),
    )
    trainer.fit()
    ray.shutdown()


def train_func(config: dict[str, Any]) -> None:
    import tensorflow as tf
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero

    from rig.training.case import Spec
    from rig.training.words import END, SPEED, pin, tell

    spec, context = Spec.parse(config["spec"]), train.get_context()
    if spec.program == PINNED:
        pin(os.getpid(), context.get_world_rank())
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    global_batch = spec.case.batch * context.get_world_size()
    fit = partial(_compiled(spec).fit, _pipeline(spec, global_batch), verbose=0)
    fit(epochs=1, steps_per_epoch=WARM_STEPS)  # builds the graph
    trial = _watch(os.devnull)
    fit(epochs=2, steps_per_epoch=WARM_STEPS, callbacks=[trial])
    steps = broadcast_from_rank_zero(math.ceil(config["seconds"] / EPOCHS / (trial.seconds / WARM_STEPS)))
    is_first = context.get_world_rank() == 0
    watch = _watch(config["fifo"] if is_first else os.devnull)
    fit(epochs=1 + EPOCHS, steps_per_epoch=steps, callbacks=[watch])
    if is_first:
        images = EPOCHS * steps * global_batch
        tell(config["fifo"], END)
        tell(config["fifo"], SPEED, images_per_s=images / watch.seconds, images=images)


def _compiled(spec: Any) -> Any:
    import tensorflow as tf

    from rig.training import nets
    from rig.training.case import LEARNING_RATE

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == spec.world
    with strategy.scope():
        model = nets.build(spec.case.net, tf.keras)
        model.compile(
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            optimizer=tf.keras.optimizers.Adam(learning_rate=LEARNING_RATE),
            metrics=["accuracy"],
        )
    return model


def _pipeline(spec: Any, global_batch: int) -> Any:
    import numpy as np
    import tensorflow as tf

    from rig.training import rows
    from rig.training.case import NETS

    images, labels = rows.make(NETS[spec.case.net])
    dataset = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), labels))
    return dataset.shuffle(60_000).repeat().batch(global_batch)


def _watch(fifo: str) -> Any:
    """A callback that tells where the second epoch begins, and keeps the seconds from there to the end of the last."""
    import tensorflow as tf

    from rig.training.words import BEGIN, tell

    class Watch(tf.keras.callbacks.Callback):  # type: ignore[misc]
        began = seconds = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            if epoch == 1:
                tell(fifo, BEGIN)
                self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.seconds = time.perf_counter() - self.began

    return Watch()


if __name__ == "__main__":
    main()
