"""Ray Train's set-up of TensorFlow workers, without TensorFlow.

Ray's own `TensorflowConfig` imports TensorFlow in the driver and sets TF_USE_LEGACY_KERAS, under which Keras 3 is
not what `tf.keras` means (ray#47464).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

TRANSPORT = "STARTUP_RAY_TRANSPORT"
"""Name in the environment of a worker: what `sync.connect` is to use."""


@dataclass
class KerasConfig(BackendConfig):
    """Tell each worker how to reach all."""

    transport: str = "auto"
    """auto, memory, ring or nccl."""
    gpus_per_worker: float = 0.0

    @property
    def backend_cls(self) -> type[Backend]:
        return KerasBackend


class KerasBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Runs in Ray Train's controller, once for each attempt, so addresses are always fresh."""
        assert isinstance(backend_config, KerasConfig)
        places = worker_group.execute(place)
        transport = choose_transport(
            backend_config.transport, [node for node, _ in places], backend_config.gpus_per_worker
        )
        addresses = [address for _, address in places]
        calls = [
            worker_group.execute_single_async(rank, set_cluster, addresses, rank, transport)
            for rank in range(len(worker_group))
        ]
        ray.get(calls)


def worker_environment(threads: int, gpus: float = 0.0) -> dict[str, str]:
    """Environment that a worker process must be born with.

    A process environment of its own also keeps Ray from reusing a process that has TensorFlow loaded already,
    with other thread counts.
    """
    return {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": str(threads),
        **({} if gpus else {"CUDA_VISIBLE_DEVICES": "-1"}),  # with GPUs Ray sets it, to those of the worker
    }


def choose_transport(wanted: str, nodes: Sequence[str], gpus_per_worker: float) -> str:
    """What workers on these nodes use, as `sync.connect` takes it.

    NCCL wants a GPU per worker; workers that share one, or have none, use the memory of their host, or TensorFlow's
    ring if they are on several. A wish for memory that several hosts cannot fulfil is a ring.
    """
    is_one_host = len(set(nodes)) == 1
    if wanted == "nccl" or (wanted == "auto" and gpus_per_worker >= 1):
        return "nccl"
    # A name that nobody else can know or meet.
    return f"memory:{secrets.token_hex(16)}" if is_one_host and wanted != "ring" else "ring"


def place() -> tuple[str, str]:
    """Node of this worker, and `free_address`."""
    return ray.get_runtime_context().get_node_id(), free_address()


def free_address() -> str:
    """`ip:port` of this worker as others reach it; the port was free a moment ago."""
    address: str = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def set_cluster(addresses: Sequence[str], rank: int, transport: str) -> None:
    """Set TF_CONFIG of this process, if there are others that TensorFlow is to connect, and the transport."""
    for name in ("TF_USE_LEGACY_KERAS", "TF_CONFIG"):
        os.environ.pop(name, None)
    os.environ[TRANSPORT] = transport
    if len(addresses) > 1 and not transport.startswith("memory:"):
        cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": rank}}
        os.environ["TF_CONFIG"] = json.dumps(cluster)
