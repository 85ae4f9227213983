"""What workers tell each other: sums of tensors, and small messages made of sums.

Three transports, one law: the sum is bit-identical on all workers.
- `memory`: all workers are on one host and share memory (`neighbours.py`).
- `ring`: TensorFlow's gRPC between hosts, all tensors of a sum in one message, 16 bits a number on the wire if asked.
- `nccl`: the same between GPUs.
For the last two `MultiWorkerMirroredStrategy` is only the transport. Models and optimizers live in the default strategy
and are ordinary Keras, because Keras 3 does not train under this strategy (keras#20585).

    sync = connect(world=2, rank=0, transport="memory:5f2c", wire="float32")
    totals = sync.sum_all(gradients)        # also inside tf.function
    total = sync.sum(counts)                # never rounded on the wire
    payload = sync.broadcast(b"...")        # rank 0's bytes on every worker
    table = sync.gather(np.array([1, 2]))   # [world, 2] on every worker
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from startup_ray.errors import StartupRayError
from startup_ray.trainers.neighbours import Neighbours, join

T = TypeVar("T")

TIMEOUT_S = 300.0
"""How long a worker waits for the others. Longer than rank 0 needs to write a checkpoint, for which they wait."""


class Transport(Protocol):
    def sum_all(self, tensors: Sequence[Any], wire: Any) -> list[Any]:
        """Tensors of one dtype, of any known shapes -> their sums over all workers, rounded to `wire` on the way."""

    def close(self) -> None:
        """Leave."""


@dataclass(frozen=True, kw_only=True)
class Sync:
    rank: int
    world: int
    transport: Transport | None
    """None in a world of one, which needs none."""
    wire: str = "float32"

    def sum_all(self, tensors: Sequence[Any]) -> list[Any]:
        """Float tensors of known shapes -> the sums of all workers' tensors, bit-identical on all of them."""
        if self.transport is None:
            return list(tensors)
        return self.transport.sum_all(tensors, tf.as_dtype(self.wire))

    def sum(self, values: Any) -> Any:
        """Tensor of any dtype -> the sum of all workers' tensors, bit-identical on all of them, in full precision."""
        if self.transport is None:
            return values
        return self.transport.sum_all([values], values.dtype)[0]

    def gather(self, values: np.ndarray) -> np.ndarray:
        """int64 [n] -> int64 [world, n], row r from rank r."""
        table = np.zeros((self.world, *values.shape), np.int64)
        table[self.rank] = values
        return np.asarray(self.sum(tf.constant(table)))

    def broadcast(self, payload: bytes, source: int = 0) -> bytes:
        """The bytes of rank `source`; what others pass is ignored. Sums of integers with zero keep every bit."""
        size = int(self.gather(np.array([len(payload)], np.int64))[source, 0])
        if not size:  # TensorFlow's ring aborts the process over an empty tensor
            return b""
        words = np.zeros(-(-size // 8), np.int64)
        if self.rank == source:
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

    def agree(self, act: Callable[[], T]) -> T:
        """Do what may fail on some workers alone; an error of ours that one meets is met by all: nobody waits for it.

        Raises:
            StartupRayError: that of the first worker that met one.
        """
        packed, result = b"", None
        try:
            result = act()
        except StartupRayError as error:
            packed = pickle.dumps(error)
        failed = np.flatnonzero(self.gather(np.array([bool(packed)], np.int64)))
        if failed.size:
            raise pickle.loads(self.broadcast(packed, int(failed[0])))  # noqa: S301 - from a worker of this group
        return result  # type: ignore[return-value]

    def on_rank_0(self, act: Callable[[], T]) -> T | None:
        """`agree` about what rank 0 alone does; None on the others."""
        return self.agree(lambda: act() if self.rank == 0 else None)

    def close(self) -> None:
        """Leave, so that the others need not wait for this worker."""
        if self.transport is not None:
            self.transport.close()


def alone() -> Sync:
    """A world of one."""
    return Sync(rank=0, world=1, transport=None)


def connect(*, world: int, rank: int, transport: str, wire: str = "float32", timeout_s: float = TIMEOUT_S) -> Sync:
    """Join the other workers; a world of one joins nobody.

    Args:
        transport: `memory:TOKEN`, `ring` or `nccl`, as `backend.py` has chosen. The last two read TF_CONFIG and must be
            joined before any other TensorFlow operation.
        wire: dtype in which gradients travel by `ring` and `nccl`: float32, bfloat16 or float16.
        timeout_s: what takes longer raises `tf.errors.OpError`, and the process must be started anew.

    Raises:
        NeighbourLostError: the others are not there, by `memory`.
    """
    if world == 1:
        return alone()
    kind, _, token = transport.partition(":")
    if kind == "memory":
        made: Transport = SharedMemory(join(token, rank=rank, world=world, timeout_s=timeout_s))
    else:
        made = Collectives(kind, timeout_s)
    return Sync(rank=rank, world=world, transport=made, wire=wire)


class SharedMemory:
    """`Neighbours` as operations of a graph; TensorFlow keeps their order, since they have side effects."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours

    def sum_all(self, tensors: Sequence[Any], wire: Any) -> list[Any]:  # noqa: ARG002 - memory needs no shorter numbers
        sums = tf.numpy_function(lambda *own: self._neighbours.sum(own), tensors, [t.dtype for t in tensors])
        sums = sums if isinstance(sums, list | tuple) else [sums]  # outside of a graph, a list of one comes back bare
        return [_shaped(total, tensor) for total, tensor in zip(sums, tensors, strict=True)]

    def close(self) -> None:
        self._neighbours.close()


class Collectives:
    """TensorFlow's collective operations."""

    def __init__(self, kind: str, timeout_s: float) -> None:
        implementation = tf.distribute.experimental.CommunicationImplementation[kind.upper()]
        self._options = tf.distribute.experimental.CommunicationOptions(
            implementation=implementation, timeout_seconds=timeout_s
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=self._options)

    def sum_all(self, tensors: Sequence[Any], wire: Any) -> list[Any]:
        """In one message: latency, not size, is what small nets pay for."""
        dtype = tensors[0].dtype
        packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        summed = self._strategy.run(self._all_reduce, args=(tf.cast(packed, wire),))
        sizes = tf.stack([tf.size(tensor) for tensor in tensors])
        parts = tf.split(tf.cast(summed, dtype), sizes, num=len(tensors))
        return [_shaped(tf.reshape(part, tf.shape(t)), t) for part, t in zip(parts, tensors, strict=True)]

    def close(self) -> None:
        """TensorFlow leaves with the process."""

    def _all_reduce(self, values: Any) -> Any:
        context = tf.distribute.get_replica_context()
        # Without the identity, TensorFlow says "destinations can not be empty".
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(values), self._options)


def _shaped(total: Any, like: Any) -> Any:
    total.set_shape(like.shape)
    return total
