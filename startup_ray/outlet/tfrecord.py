"""TFRecord: files of `tf.train.Example`, with the names of features that TensorFlow's Slim library gave them.

    train-00000-of-00004.tfrecord ...  features.json

Names after Slim's `dataset_utils.image_to_tfexample` and `download_and_convert_imagenet`
(github.com/tensorflow/models, research/slim/datasets); `image/id`, `image/sha256` and `image/own` are ours. Class
indices count from 0, as everywhere here, and `NO_LABEL` is an image without a label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from startup_ray.dataset import Dataset
from startup_ray.outlet.parts import Add, Work, write_parts
from startup_ray.outlet.rows import Row

PART = "{split}-{number:05d}-of-{total:05d}.tfrecord"
ROW_BYTES = 500
FEATURES = {
    "image/encoded": "string",
    "image/format": "string",
    "image/height": "int64",
    "image/width": "int64",
    "image/channels": "int64",
    "image/class/label": "int64",
    "image/class/text": "string",
    "image/id": "string",
    "image/sha256": "string",
    "image/own": "string",
}
"""Each of shape []; dtypes as `tf.io.FixedLenFeature` takes them."""


def write(work: Work) -> None:
    """Write all parts, and what is in them."""
    write_parts(work, PART, open_part, row_bytes=ROW_BYTES)
    features = {name: {"dtype": dtype, "shape": []} for name, dtype in FEATURES.items()}
    about = {"features": features, "classes": list(work.dataset.classes)}
    work.target.put("features.json", (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())


@contextmanager
def open_part(path: Path, dataset: Dataset) -> Iterator[Add]:
    """A TFRecord file that rows are added to."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        yield lambda row: writer.write(_example(tf, row, dataset.image_shape[2]))


def _example(tf: Any, row: Row, channels: int) -> bytes:
    """A serialized `tf.train.Example`, its features in the same order whenever it is made."""
    height, width = row.image_size
    values: dict[str, bytes | int] = {
        "image/encoded": row.image,
        "image/format": row.kind.lower().encode(),
        "image/height": height,
        "image/width": width,
        "image/channels": channels,
        "image/class/label": row.index,
        "image/class/text": (row.label or "").encode(),
        "image/id": row.id.encode(),
        "image/sha256": row.sha256.encode(),
        "image/own": (row.own or "").encode(),
    }
    features = {name: _feature(tf, value) for name, value in values.items()}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _feature(tf: Any, value: bytes | int) -> Any:
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
