"""Who judges generated images: a classifier whose last hidden layer says what images are like.

    data = make_judge(dataset)                      # a .keras file, trained on the dataset's labels
    judge = open_judge("features.keras")
    features, predicted = judge(images)             # float64 [n, d], int64 [n]

Distances between sets of features mean something only beside others by the same judge.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError, first_line
from startup_ray.job import CnnOptions
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.models import build_cnn
from startup_ray.trainers.state import saved

BATCH_ROWS = 256
"""Constant, because features differ in their last bits between batch sizes."""
EPOCHS, MOST_STEPS, TRAINING_BATCH = 25, 5_000, 64
FEATURES = 64
SEED = 0
INCEPTION = "inception:"


@dataclass(frozen=True, kw_only=True)
class Judge:
    call: Any
    """float32 [n, H, W, C] in [0, 255] -> features [n, d] and logits [n, classes]; of no class if it has none."""
    size: int
    """d"""
    num_classes: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of any number dtype [n, H, W, C] in [0, 255] -> features float64 [n, d], predicted class int64 [n]."""
        features, classes = np.zeros([len(images), self.size]), np.zeros(len(images), np.int64)
        for start in range(0, len(images), BATCH_ROWS):
            here = slice(start, min(start + BATCH_ROWS, len(images)))
            found, logits = self.call(np.asarray(images[here], np.float32))
            features[here] = found
            if self.num_classes:
                classes[here] = np.argmax(logits, axis=1)
        return features, classes


def judging_network(image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """A CNN with poolings enough that little of the image's places is left, and `FEATURES` hidden units."""
    side, filters = min(image_shape[:2]), [32]
    side = (side - 2) // 2
    while side > 7:
        filters.append(min(2 * filters[-1], 128))
        side = (side - 2) // 2
    return build_cnn(image_shape, num_classes, CnnOptions(filters=tuple(filters), dense=FEATURES, dropout=0.3))


def train_classifier(images: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int, epochs: int) -> Any:
    """A classifier of images [n, H, W, C] in [0, 255] and labels int [n], all of them known."""
    import keras

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("float32")
    model = judging_network(images.shape[1:], num_classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    epochs = max(1, min(epochs, MOST_STEPS * TRAINING_BATCH // len(images)))
    model.fit(np.asarray(images, np.float32), labels, batch_size=TRAINING_BATCH, epochs=epochs, verbose=0)
    return model


def make_judge(dataset: Dataset, features: str = "") -> bytes:
    """A `.keras` file: what `features` names (see `read_judge`), or else a classifier of the train split.

    On one CPU thread and from a seed of its own, so that all runs on a dataset are judged alike. Nothing if nobody says
    what to judge by, and there are no labels to learn it from.

    Raises:
        UsageError: see `read_judge`.
    """
    if features:
        return read_judge(features, dataset.image_shape)
    return train_judge(dataset) if len(dataset.classes) > 1 else b""


def train_judge(dataset: Dataset) -> bytes:
    """A `.keras` file of a classifier of the train split."""
    from startup_ray.trainers.scoring import use_one_thread

    use_one_thread()
    rows = open_split(dataset, "train")
    known = np.flatnonzero(rows.labels >= 0)
    model = train_classifier(rows.images[known], rows.labels[known], len(dataset.classes), seed=SEED, epochs=EPOCHS)
    return saved(model)


def read_judge(place: str, image_shape: tuple[int, int, int]) -> bytes:
    """What the job names as `evaluation.features`, as a `.keras` file that takes these images.

    Args:
        place: folder of a run, a `.keras` file, or `inception:` and the file of InceptionV3's weights.

    Raises:
        UsageError: there is no model, or it does not take such images.
    """
    from startup_ray.trainers.scoring import load_model, model_at

    if place.startswith(INCEPTION):
        return saved(_inception(place.removeprefix(INCEPTION), image_shape))
    folder, name = model_at(place)
    _require_fit(load_model(folder, name), image_shape, place)
    return folder.read(name)


def open_judge(folder: Folder, name: str, image_shape: tuple[int, int, int]) -> Judge:
    """A judge from a run's folder.

    Raises:
        UsageError: there is no model, or it does not take such images.
    """
    from startup_ray.trainers.scoring import load_model

    return judge_of(load_model(folder, name), image_shape)


def judge_of(model: Any, image_shape: tuple[int, int, int]) -> Judge:
    """What goes into the last dense layer of a classifier; of a model without one, what it gives."""
    import keras
    import tensorflow as tf

    last = model.layers[-1]
    is_classifier = isinstance(last, keras.layers.Dense)
    (output,) = model.outputs
    features = last.input if is_classifier else keras.layers.Flatten()(output)
    both = keras.Model(model.inputs, [features, output])
    signature = [tf.TensorSpec([None, *image_shape], tf.float32)]
    call = tf.function(lambda images: both(images, training=False), input_signature=signature, autograph=False)
    classes = int(output.shape[-1]) if is_classifier else 0
    return Judge(call=call, size=int(features.shape[-1]), num_classes=classes)


def _require_fit(model: Any, image_shape: tuple[int, int, int], place: str) -> None:
    takes = getattr(model, "input_shape", None)
    if not getattr(model, "outputs", None) or len(model.outputs) != 1:
        raise UsageError("this model has no layers between one input and one output", where=place, hint="name another")
    if not isinstance(takes, tuple) or takes[1:] != image_shape:
        raise UsageError(f"this model does not take images of shape {image_shape}", where=place, hint="name another")


def _inception(weights: str, image_shape: tuple[int, int, int]) -> Any:
    """InceptionV3's 2,048 means over the image, as FID is defined, from images of any size."""
    import keras
    from keras import layers

    if not os.path.isfile(weights):
        hint = "InceptionV3's weights without its top, a .h5 file"
        raise UsageError("no such file", where=weights, hint=hint)
    x = inputs = keras.Input(image_shape)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = layers.Rescaling(1 / 127.5, -1)(layers.Resizing(299, 299)(x))
    try:
        network = keras.applications.InceptionV3(include_top=False, weights=weights, pooling="avg")
    except (ValueError, OSError) as error:
        raise UsageError(f"these are no weights of InceptionV3: {first_line(error)}", where=weights) from error
    return keras.Model(inputs, network(x))
