from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_tensorflow_reads_what_was_measured(tmp_path: Path) -> None:
    import tensorflow as tf

    from startup_ray.trainers.tensorboard import encode, name_of

    lines = [{"epoch": 1, "step": 5, "val/loss": 0.5}, {"epoch": 2, "step": 10, "val/loss": 0.25, "images_per_s": 9.0}]
    path = tmp_path / name_of(3)
    path.parent.mkdir()
    path.write_bytes(encode(lines, [100.0, 200.0]))
    assert "tfevents" in path.name
    first, *events = tf.compat.v1.train.summary_iterator(str(path))
    assert first.file_version == "brain.Event:2"
    found = [(event.step, event.wall_time, {v.tag: v.simple_value for v in event.summary.value}) for event in events]
    assert found == [(5, 100.0, {"val/loss": 0.5}), (10, 200.0, {"val/loss": 0.25, "images_per_s": 9.0})]
