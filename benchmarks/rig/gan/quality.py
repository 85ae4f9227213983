"""One contestant, trained for some CPU seconds and judged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rig.gan.case import BATCH, CLASSES, SHAPE, WIDTH, Digits, digits, program
from rig.gan.peers import CRITIC_STEPS, Wgan
from startup_ray.fidelity import Moments, frechet_distance, kernel_distance, modes
from startup_ray.neighbourhoods import memorisation, neighbourhoods
from startup_ray.runs import FEATURES
from startup_ray.storage import Folder
from startup_ray.trainers import loop
from startup_ray.trainers.feed import Feed
from startup_ray.trainers.gan.judge import EPOCHS, SEED, Judge, judge_of, open_judge, train_classifier
from startup_ray.trainers.gan.sampling import Wanted, as_in_training, draw, grid, png, wanted_images
from startup_ray.trainers.loop import Plan
from startup_ray.trainers.scoring import use_one_thread
from startup_ray.trainers.state import saved
from startup_ray.trainers.sync import alone

SAMPLES = 2_000
CAS_SEED = 1
STEPS_PER_CALL = 16
FAR = 10**9
"""More steps than any contestant makes."""


def make_judge(folder: str) -> dict[str, Any]:
    """Train it, keep it in the folder, and say how good it is and what real test images have."""
    use_one_thread()
    found = digits()
    model = train_classifier(found.train, found.train_labels, CLASSES, seed=SEED, epochs=EPOCHS)
    Folder(folder).put_whole(FEATURES, saved(model))
    judge = judge_of(model, SHAPE)
    features, predicted = judge(found.test)
    told = {"judge's accuracy on test images": float((predicted == found.test_labels).mean())}
    return told | {f"test images' {name}": value for name, value in distances(features, judge, found).items()}


def measure(folder: str, kind: str, *, seed: int, seconds: float) -> dict[str, Any]:
    """Train, judge 2,000 samples, and leave a grid of them in the folder."""
    os.sched_setaffinity(0, {seed % os.cpu_count()})  # type: ignore[operator]
    use_one_thread()
    found = digits()
    model, steps, cpu_s, classes = (_wgan if kind == "wgan-gp" else _ours)(kind, found, seed, seconds)
    frequent = as_in_training(found.train_labels, 0) if classes else None
    wanted = wanted_images(0, SAMPLES, int(model.inputs[0].shape[-1]), frequent)
    images = draw(model, wanted, 0, SAMPLES)
    judge = open_judge(Folder(folder), FEATURES, SHAPE)
    features, predicted = judge(images)
    seen = modes(predicted, CLASSES)
    flat = [part.reshape(len(part), -1).astype(np.float32) for part in (images[:1000], found.train, found.test)]
    near = memorisation(*flat)
    Path(folder, f"{kind}.png").write_bytes(png(grid(images[:100], 10)))
    return {
        "steps": steps,
        "CPU s": round(cpu_s, 1),
        "steps per CPU s": steps / cpu_s,
        "parameters": int(sum(np.prod(weight.shape) for weight in model.weights)),
        **distances(features, judge, found),
        "entropy": seen.entropy,
        "rarest": seen.rarest,
        "CAS": _cas(images, wanted, predicted, found),
        "nearest ratio": near["ratio"],
        "copies": near["copies"],
    }


def distances(features: np.ndarray, judge: Judge, found: Digits) -> dict[str, float]:
    """Of samples, or of test images, from the training images."""
    real, _ = judge(found.train)
    fid = frechet_distance(Moments.of(features), Moments.of(real))
    return {"FID": fid, "KID": kernel_distance(features, real), "coverage": neighbourhoods(features, real)["coverage"]}


def _ours(kind: str, found: Digits, seed: int, seconds: float) -> tuple[Any, int, float, int]:
    """Production's step and loop; the averaged generator, steps, CPU seconds, classes it is asked for."""
    made = program(kind, alone(), seed=seed)
    feed = Feed(
        images=found.train,
        labels=found.train_labels,
        global_batch=BATCH,
        seed=seed,
        rank=0,
        world=1,
        takes_unlabelled=True,
    )
    plan = Plan(
        steps=FAR, steps_per_epoch=feed.steps_per_epoch, steps_per_call=STEPS_PER_CALL, checkpoint_every_steps=FAR
    )
    steps = loop.many_steps(made.train_step, feed.rows, SHAPE, made.sums)
    first = made.arrays()
    steps(*next((images, labels, 0) for _, images, labels in feed.batches(loop.chunks(plan, 0))))  # traces
    made.restore(first)
    batches = feed.batches(loop.chunks(plan, 0))

    def call() -> int:
        chunk, images, labels = next(batches)
        steps(images, labels, chunk.first).numpy()
        return chunk.count

    total, cpu_s = _for_seconds(call, seconds)
    for weight, average in zip(made.generator.trainable_variables, made.average, strict=True):
        weight.assign(average)
    return made.model, total, cpu_s, made.num_classes


def _wgan(kind: str, found: Digits, seed: int, seconds: float) -> tuple[Any, int, float, int]:  # noqa: ARG001
    import keras

    from startup_ray.trainers.gan.nets import build_discriminator, build_generator, build_sampler
    from startup_ray.trainers.gan.recipes import R3GAN

    keras.utils.set_random_seed(seed)
    recipe = replace(R3GAN, width=WIDTH)
    made = Wgan.of(build_generator(SHAPE, recipe), build_discriminator(SHAPE, recipe), recipe)
    images = tf.constant(found.train.astype(np.float32) / 127.5 - 1)
    random, numbers = np.random.default_rng(seed), count()

    @tf.function
    def many(places: Any, first: Any) -> None:
        for i in tf.range(STEPS_PER_CALL):
            made.step(tf.gather(images, places[i]), first + tf.cast(i, tf.int64))

    def call() -> int:
        places = random.integers(0, len(found.train), (STEPS_PER_CALL, CRITIC_STEPS, BATCH))
        many(tf.constant(places), tf.constant(next(numbers) * STEPS_PER_CALL, tf.int64))
        return STEPS_PER_CALL

    call()  # traces, and is 16 steps more than others have
    total, cpu_s = _for_seconds(call, seconds)
    for weight, average in zip(made.generator.trainable_variables, made.average, strict=True):
        weight.assign(average)
    return build_sampler(made.generator), total, cpu_s, 0


def _for_seconds(call: Callable[[], int], seconds: float) -> tuple[int, float]:
    """Steps, and the CPU seconds of this process that they took."""
    began, total = time.process_time(), 0
    while time.process_time() - began < seconds:
        total += call()
    return total, time.process_time() - began


def _cas(images: np.ndarray, wanted: Wanted, predicted: np.ndarray, found: Digits) -> float:
    """Accuracy on test images of a classifier of samples; where no class is asked for, the judge says which it is."""
    labels = predicted if wanted.classes is None else wanted.classes
    model = train_classifier(images, labels, CLASSES, seed=CAS_SEED, epochs=EPOCHS)
    _, told = judge_of(model, SHAPE)(found.test)
    return float((told == found.test_labels).mean())
