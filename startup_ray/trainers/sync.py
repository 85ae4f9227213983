"""What workers tell each other: sums of vectors, and small messages made of sums.

`MultiWorkerMirroredStrategy` is only the transport. Models and optimizers live in the default strategy and are
ordinary Keras, because Keras 3 does not train under this strategy (keras#20585).

    sync = connect(world=2, rank=0)         # reads TF_CONFIG; before any other TensorFlow operation
    total = sync.sum(vector)                # also inside tf.function
    payload = sync.broadcast(b"...")        # rank 0's bytes on every worker
    table = sync.gather(np.array([1, 2]))   # [world, 2] on every worker
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

TIMEOUT_S = 300.0
"""How long a worker waits for the others. Longer than rank 0 needs to write a checkpoint, for which they wait."""


@dataclass(frozen=True, kw_only=True)
class Sync:
    rank: int
    world: int
    strategy: Any
    """None in a world of one, which needs no transport."""
    options: Any

    def sum(self, values: Any) -> Any:
        """Tensor of any dtype and shape -> the sum of all workers' tensors, bit-identical on all of them."""
        if self.strategy is None:
            return values
        return self.strategy.run(self._all_reduce, args=(values,))

    def gather(self, values: np.ndarray) -> np.ndarray:
        """int64 [n] -> int64 [world, n], row r from rank r."""
        table = np.zeros((self.world, *values.shape), np.int64)
        table[self.rank] = values
        return np.asarray(self.sum(tf.constant(table)))

    def broadcast(self, payload: bytes) -> bytes:
        """Rank 0's bytes; what others pass is ignored. Sums of integers with zero keep every bit, -0.0 too."""
        size = int(self.gather(np.array([len(payload)], np.int64))[0, 0])
        words = np.zeros(-(-size // 8), np.int64)
        if self.rank == 0:
            words.view(np.uint8)[:size] = np.frombuffer(payload, np.uint8)
        return np.asarray(self.sum(tf.constant(words))).tobytes()[:size]

    def all_equal(self, digest: str) -> bool:
        """Whether all workers pass the same text `sha256:<hex>`; the answer is the same on all."""
        words = np.frombuffer(bytes.fromhex(digest.removeprefix("sha256:")), np.int64)
        table = self.gather(words)
        return bool((table == table[0]).all())

    def any(self, flag: bool) -> bool:
        """Whether any worker passes True; the answer is the same on all."""
        return bool(self.gather(np.array([flag], np.int64)).any())

    def _all_reduce(self, values: Any) -> Any:
        context = tf.distribute.get_replica_context()
        # Without the identity, TensorFlow says "destinations can not be empty".
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(values), self.options)


def connect(*, world: int, rank: int, timeout_s: float = TIMEOUT_S) -> Sync:
    """Join the other workers of TF_CONFIG; a world of one joins nobody.

    A collective that takes longer than `timeout_s` raises `tf.errors.DeadlineExceededError`; the process cannot
    synchronise again after that and must be started anew.
    """
    kind = tf.distribute.experimental.CommunicationImplementation.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind, timeout_seconds=timeout_s)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options) if world > 1 else None
    return Sync(rank=rank, world=world, strategy=strategy, options=options)
