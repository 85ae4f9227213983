"""Ray Train's set-up of TensorFlow workers, without TensorFlow.

Ray's own `TensorflowConfig` imports TensorFlow in the driver and sets TF_USE_LEGACY_KERAS, under which Keras 3 is
not what `tf.keras` means (ray#47464).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


@dataclass
class KerasConfig(BackendConfig):
    """Tell each worker the addresses of all, as TF_CONFIG."""

    @property
    def backend_cls(self) -> type[Backend]:
        return KerasBackend


class KerasBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:  # noqa: ARG002
        """Runs in Ray Train's controller, once for each attempt, so addresses are always fresh."""
        addresses = worker_group.execute(free_address)
        ray.get(
            [worker_group.execute_single_async(rank, set_cluster, addresses, rank) for rank in range(len(worker_group))]
        )


def worker_environment(threads: int) -> dict[str, str]:
    """Environment that a worker process must be born with.

    A process environment of its own also keeps Ray from reusing a process that has TensorFlow loaded already,
    with other thread counts.
    """
    return {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def free_address() -> str:
    """`ip:port` of this worker as others reach it; the port was free a moment ago."""
    address: str = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def set_cluster(addresses: Sequence[str], rank: int) -> None:
    """Set TF_CONFIG of this process; a single worker needs none."""
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    os.environ.pop("TF_CONFIG", None)
    if len(addresses) > 1:
        cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": rank}}
        os.environ["TF_CONFIG"] = json.dumps(cluster)
