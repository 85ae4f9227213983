"""The only place that joins or starts Ray.

with connect() as session:          # a local Ray, or the one that RAY_ADDRESS or --address names
    ...
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from startup_ray.errors import ClusterError, StorageError, first_line
from startup_ray.remote import on_each_node
from startup_ray.storage import Folder
from startup_ray.submit.address import find_token

CONNECT_S = 10.0
"""How long a cluster may take to accept a connection."""
LEAN = {"enable_metrics_collection": False, "event_stats": False, "task_events_report_interval_ms": 0}
"""Of a Ray that has no dashboard and ends with us: what nobody can look at is not written down."""


@dataclass(frozen=True)
class Session:
    """What is known of the Ray that this process is connected to."""

    address: str
    nodes: int
    cpus: float
    gpus: float


@contextmanager
def connect(address: str | None = None) -> Iterator[Session]:
    """Join the Ray at `address` or RAY_ADDRESS, else start one on this machine and stop it at the end.

    A Ray that is already initialised in this process is used as it is and left alone.

    Raises:
        ClusterError: no Ray answers there, none can be started, or it fails while the block runs.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted != "local":
        _authenticate()
    import ray

    if ray.is_initialized():
        yield _describe()
        return
    _require_answer(wanted)
    is_main = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=wanted,
            include_dashboard=False if wanted == "local" else None,
            _system_config=LEAN if wanted == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        hint = "check --address; does the cluster want a token? Then set RAY_AUTH_TOKEN_PATH to a file with it"
        raise ClusterError(f"no Ray to work with: {first_line(error)}", where=wanted, hint=hint) from error
    if is_main:
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init has put a handler of its own there
    try:
        yield _describe()
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"Ray failed: {first_line(error)}", where=wanted, hint="run the same command again"
        ) from error
    finally:
        ray.shutdown()


def _authenticate() -> None:
    """Use a token that is found: Ray does so only in a mode that is off by default, and is then refused after 21 s."""
    if "RAY_AUTH_MODE" not in os.environ and find_token(os.environ):
        os.environ["RAY_AUTH_MODE"] = "token"


def _require_answer(address: str) -> None:
    """See that somebody listens at `[ray://]host:port`: `ray.init` waits for minutes where nobody does."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        knock(f"{host}:{port}", CONNECT_S)
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "check --address and RAY_ADDRESS, that the cluster is up, and that this host may reach it"
        raise ClusterError(f"no Ray answers here: {reason}", where=address, hint=hint) from error


def knock(address: str, timeout_s: float) -> None:
    """Open a connection to `host:port` and close it; OSError if nobody answers."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()


def require_storage(folder: Folder) -> None:
    """See that every node of the cluster can write and read `folder`, and that it outlives a Ray job.

    Raises:
        StorageError: naming the node that cannot, or a folder that is gone with its job.
    """
    import ray

    probe = f".probe-{uuid.uuid4().hex}"
    folder.put_whole(probe, b"")
    try:
        if folder.is_local and sum(node["Alive"] for node in ray.nodes()) > 1:
            _see_from_each(folder, probe)
    finally:
        folder.delete(probe)


def require_lasting(storage: str) -> None:
    """Refuse a relative path inside a Ray job, whose working directory is removed with the job.

    Raises:
        StorageError: with the way out.
    """
    is_relative = "://" not in storage and not os.path.isabs(os.path.expanduser(storage))
    if is_relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise StorageError(
            "a relative path does not outlive a Ray job",
            where=f"storage: {storage}",
            hint="give an absolute path on a shared file system, or s3://... or gs://...",
        )


def _see_from_each(folder: Folder, probe: str) -> None:
    import ray

    blind = [address for address, answer in on_each_node(folder.exists, probe) if not ray.get(answer, timeout=60)]
    if blind:
        raise StorageError(
            f"node {blind[0]} does not see this folder",
            where=str(folder),
            hint="set `storage` to a shared file system, or to s3://... or gs://...",
        )


def _describe() -> Session:
    import ray

    resources = ray.cluster_resources()
    return Session(
        address=ray.get_runtime_context().gcs_address,
        nodes=len([node for node in ray.nodes() if node["Alive"]]),
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
    )
