"""Metrics of epochs as a file that TensorBoard reads: `tensorboard --logdir RUN`.

TensorFlow's own writer appends to a file on local disk; ours makes the whole file anew, so that it appears whole on any
storage. Format: TFRecords of `Event` messages (tensorflow/core/util/event.proto).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


def name_of(attempt: int) -> str:
    """Path in the run's folder; TensorBoard knows its files by a part of the name, and orders them by it."""
    return f"{FOLDER}/events.out.tfevents.{attempt:010d}.startup-ray"


def encode(lines: Sequence[Mapping[str, Any]], times: Sequence[float]) -> bytes:
    """Lines of metrics with their `step`, and when each was measured, in seconds since the epoch -> the file."""
    import tensorflow as tf

    event, summary = tf.compat.v1.Event, tf.compat.v1.Summary
    events = [event(wall_time=times[0] if times else 0.0, file_version="brain.Event:2")]
    for line, at in zip(lines, times, strict=True):
        values = [
            summary.Value(tag=name, simple_value=value) for name, value in line.items() if name not in ("step", "epoch")
        ]
        events.append(event(wall_time=at, step=line["step"], summary=summary(value=values)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events")
        with tf.io.TFRecordWriter(str(path)) as writer:
            for item in events:
                writer.write(item.SerializeToString())
        return path.read_bytes()
