"""Seeds of random numbers that depend on nothing but what they are for."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def seed_of(seed: int, *path: Any) -> Any:
    """int64 [2], another for each path of integers or int64 scalars."""
    key = tf.constant([seed, 0], tf.int64)
    for part in path:
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(part, tf.int64))
    return key
