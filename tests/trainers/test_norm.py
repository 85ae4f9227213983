"""Batch normalisation over all workers; that several equal one is proven with the whole step in test_cnn.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ray


def alone() -> Any:
    from startup_ray.trainers.sync import alone as of_one

    return of_one()


def normalised(*, own: bool, mask: np.ndarray | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs in training, then the layer's weights: Keras' own way, or ours."""
    import keras

    from startup_ray.trainers.norm import synchronise

    layer = keras.layers.BatchNormalization(momentum=0.9)
    inner = keras.Sequential([keras.Input((None, 4)), layer])
    model = keras.Sequential([keras.Input((None, 4)), inner])
    if own:
        synchronise(model, alone())
    inputs = np.random.default_rng(0).normal(3, 2, (5, 6, 4)).astype(np.float32)
    outputs = layer(inputs, training=True, mask=mask)
    return np.asarray(outputs), [np.asarray(weight) for weight in layer.weights]


@pytest.mark.parametrize("masked", [False, True])
def test_one_worker_gets_what_keras_gives_also_in_a_nested_model(masked: bool) -> None:
    mask = np.random.default_rng(1).random((5, 6)) < 0.5 if masked else None
    (ours, our_weights), (theirs, their_weights) = normalised(own=True, mask=mask), normalised(own=False, mask=mask)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(our_weights, their_weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4)


def test_the_gradient_is_that_of_keras() -> None:
    import keras
    import tensorflow as tf

    from startup_ray.trainers.norm import synchronise

    inputs = tf.constant(np.random.default_rng(0).normal(3, 2, (50, 4)), tf.float32)
    found = []
    for own in (False, True):
        layer = keras.layers.BatchNormalization()
        model = keras.Sequential([keras.Input((4,)), layer])
        if own:
            synchronise(model, alone())
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.sin(model(inputs, training=True)))
        found.append(np.asarray(tape.gradient(loss, inputs)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert abs(found[0]).max() > 0.01


def test_a_layer_with_renorm_is_refused_by_name() -> None:
    import keras

    from startup_ray.errors import UsageError
    from startup_ray.trainers.norm import synchronise

    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(renorm=True, name="mine")])
    with pytest.raises(UsageError, match="layer 'mine': renorm"):
        synchronise(model, alone())


def test_the_saved_model_is_plain_keras(tmp_path: Any) -> None:
    import keras

    from startup_ray.trainers.norm import synchronise

    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    synchronise(model, alone())
    model.save(tmp_path / "model.keras")
    inputs = np.ones((2, 4), np.float32)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(inputs)), np.asarray(model(inputs)))
