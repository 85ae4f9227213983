"""What only a running Ray can tell: every node looked at from a process on it, and workers that meet."""

from __future__ import annotations

import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from startup_ray.doctor.checks import (
    FAIL,
    OK,
    WARN,
    Check,
    Node,
    describe,
    judge_clocks,
    judge_gpus,
    judge_space,
    judge_storage,
    judge_versions,
)
from startup_ray.errors import StorageError
from startup_ray.remote import last_line, on_each_node
from startup_ray.session import knock
from startup_ray.storage import Folder, open_folder
from startup_ray.trainers.backend import free_address, set_cluster, worker_environment
from startup_ray.trainers.cache import cache_root

NODE_S = 60.0
"""For a process on each node to start, look and answer."""
MEET_S = 90.0
"""For two workers to start, load TensorFlow and add two numbers."""


def look_at_cluster(storage: str | None) -> Iterator[Check]:
    """All checks that need Ray."""
    probes = f".doctor-{uuid.uuid4().hex}"
    folder, error = _probe(storage, probes)
    try:
        yield from _look_at_nodes(_ask_nodes(folder, probes), storage, error)
        yield _gpus()
        yield from _meet()
    finally:
        if folder is not None:
            with suppress(StorageError):
                folder.delete(probes)


def _look_at_nodes(answers: list[tuple[str, Node | None, float]], storage: str | None, error: str) -> Iterator[Check]:
    nodes = [node for _, node, _ in answers if node is not None]
    silent = [address for address, node, _ in answers if node is None]
    if silent:
        yield Check("nodes", FAIL, f"no answer within {NODE_S:.0f} s from {', '.join(silent)}", "see `ray status`")
    if nodes:
        yield judge_versions(describe([]), nodes)
        yield judge_clocks({node.host: skew for _, node, skew in answers if node is not None})
        yield judge_space(nodes)
        if storage is not None:
            yield judge_storage(storage, error, nodes)


def _probe(storage: str | None, probes: str) -> tuple[Folder | None, str]:
    """The folder with a file in it that the nodes are to find; or why it cannot be written."""
    if storage is None:
        return None, ""
    try:
        folder = open_folder(storage)
        folder.put_whole(f"{probes}/driver", b"doctor")
    except StorageError as error:
        return None, error.message
    return folder, ""


def _ask_nodes(folder: Folder | None, probes: str) -> list[tuple[str, Node | None, float]]:
    """Per node its address, what it tells of itself, and how many seconds its clock is ahead."""
    asked = on_each_node(_look, folder, probes)
    began, deadline = time.time(), time.monotonic() + NODE_S
    answers: list[tuple[str, Node | None, float]] = []
    for address, answer in asked:
        try:
            node = ray.get(answer, timeout=max(0.1, deadline - time.monotonic()))
        except (ray.exceptions.RayError, TimeoutError):
            answers.append((address, None, 0.0))
            continue
        # The node looked at its clock between these two moments: only what lies outside of them is skew.
        ended = time.time()
        answers.append((address, node, max(node.now - ended, 0.0) + min(node.now - began, 0.0)))
    return answers


def _look(folder: Folder | None, probes: str) -> Node:
    """Runs on the node."""
    error = ""
    if folder is not None:
        try:
            folder.read(f"{probes}/driver")
            folder.put_whole(f"{probes}/{uuid.uuid4().hex}", b"")
        except FileNotFoundError:
            error = f"does not see what was written to {folder}"
        except StorageError as found:
            error = found.message
    return describe([Path(tempfile.gettempdir()), cache_root()], error)


def _gpus() -> Check:
    of_ray = float(ray.cluster_resources().get("GPU", 0))
    if not of_ray:
        return judge_gpus(0, 0)
    count = ray.remote(_count_gpus).options(num_cpus=0, num_gpus=1, max_retries=0).remote()
    try:
        return judge_gpus(of_ray, ray.get(count, timeout=MEET_S))
    except ray.exceptions.GetTimeoutError:
        ray.cancel(count, force=True)
        return Check("gpus", WARN, f"no GPU was free for {MEET_S:.0f} s", "look again when other work has ended")
    except ray.exceptions.RayError as error:
        return judge_gpus(of_ray, 0, f": {last_line(error)}")


def _count_gpus() -> int:
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _meet() -> Iterator[Check]:
    """Two workers, on two hosts if there are: each reaches the other's port, and TensorFlow adds over them."""
    began = time.monotonic()
    actor = ray.remote(_Worker).options(
        num_cpus=0, scheduling_strategy="SPREAD", runtime_env={"env_vars": worker_environment(1)}
    )
    workers: list[Any] = [actor.remote() for _ in range(2)]
    name = "ports"
    try:
        places = _all([worker.listen.remote() for worker in workers], began)
        reached = _all([w.reach.remote(p) for w, p in zip(workers, reversed(places), strict=True)], began)
        hosts = " and ".join(dict.fromkeys(place.rpartition(":")[0] for place in places))
        for place, problem in zip(reversed(places), reached, strict=True):
            if problem:
                yield Check(name, FAIL, f"{place} cannot be reached: {problem}", _OPEN_PORTS)
                return
        yield Check(name, OK, f"workers reach each other ({hosts})")
        name = "collective"
        addresses = _all([worker.address.remote() for worker in workers], began)
        sums = _all([worker.add.remote(addresses, rank) for rank, worker in enumerate(workers)], began)
        if sums != [3.0, 3.0]:
            yield Check(name, FAIL, f"1 + 2 = {sums}", "please report this")
            return
        seconds = time.monotonic() - began
        yield Check(name, OK, f"two workers add two numbers in {seconds:.0f} s, TensorFlow's start included")
    except ray.exceptions.GetTimeoutError:
        yield Check(name, FAIL, f"no answer from two workers within {MEET_S:.0f} s", _OPEN_PORTS)
    except ray.exceptions.RayError as error:
        yield Check(name, FAIL, last_line(error), "see the worker's log in Ray's session folder")
    finally:
        for worker in workers:
            ray.kill(worker)


_OPEN_PORTS = "open all TCP ports between the hosts of the cluster (a security group, a NetworkPolicy)"


def _all(answers: list[Any], began: float) -> list[Any]:
    return list(ray.get(answers, timeout=max(1.0, MEET_S - (time.monotonic() - began))))


class _Worker:
    """One of the two."""

    def listen(self) -> str:
        address = free_address()
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if "[" in host else socket.AF_INET
        self._server = socket.create_server((host.strip("[]"), int(port)), family=family)
        return address

    def reach(self, address: str) -> str:
        """Empty, or why it cannot be reached."""
        try:
            knock(address, 5.0)
        except OSError as error:
            return str(error)
        return ""

    def address(self) -> str:
        return free_address()

    def add(self, addresses: list[str], rank: int) -> float:
        from startup_ray.trainers.sync import connect

        set_cluster(addresses, rank, "ring")  # what workers on several hosts need
        sync = connect(world=len(addresses), rank=rank, transport="ring", timeout_s=MEET_S)
        import tensorflow as tf

        return float(sync.sum(tf.constant([1.0 + rank]))[0])
