"""What is known without Ray: versions of this process, and how what a node tells of itself is judged."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

OK: Literal["ok"] = "ok"
WARN: Literal["warn"] = "warn"
FAIL: Literal["fail"] = "fail"

SAME_EVERYWHERE = ("startup-ray", "ray", "tensorflow", "keras", "numpy", "pyarrow")
"""What must not differ between the nodes of a cluster."""
MAX_SKEW_S = 10.0
"""A third of a lease: a clock that is further off may take a living owner for dead."""
SHM = Path("/dev/shm")  # noqa: S108 - looked at, never written to
MIN_SHM_BYTES = 2**30
MIN_DISK_BYTES = 5 * 2**30
FULL_SHARE = 0.95
"""Ray writes nothing more to a disk that is so full (`local_fs_capacity_threshold`)."""


@dataclass(frozen=True)
class Check:
    name: str
    state: Literal["ok", "warn", "fail"]
    seen: str
    hint: str = ""
    """What to do about it."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a process on a node tells of it."""

    host: str
    python: str
    versions: dict[str, str]
    """Of `SAME_EVERYWHERE`; what is not installed is missing."""
    now: float
    shm_bytes: int
    """Free in /dev/shm."""
    disks: dict[str, tuple[int, int]]
    """Folder -> free and total bytes of its disk."""
    storage_error: str = ""


def versions() -> dict[str, str]:
    found = {}
    for name in SAME_EVERYWHERE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(folders: Sequence[Path], storage_error: str = "") -> Node:
    """This node; `folders` need not exist."""
    return Node(
        host=platform.node(),
        python=platform.python_version(),
        versions=versions(),
        now=time.time(),
        shm_bytes=shutil.disk_usage(SHM).free if SHM.is_dir() else MIN_SHM_BYTES,
        disks={str(folder): _disk(folder) for folder in folders},
        storage_error=storage_error,
    )


def look_at_versions() -> Check:
    """Of this process, against what the package asks for."""
    from packaging.requirements import Requirement

    found = versions()
    seen = f"Python {platform.python_version()}, " + ", ".join(f"{name} {found[name]}" for name in found)
    problems = []
    for text in metadata.requires("startup-ray") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            problems.append(f"{wanted.name} {version} is not {wanted.specifier}")
    if problems:
        return Check("versions", FAIL, "; ".join(problems), "install the package again: pip install startup-ray")
    return Check("versions", OK, seen)


def judge_versions(driver: Node, nodes: Sequence[Node]) -> Check:
    """The same Python, to its minor version, and the same libraries on all nodes."""
    problems = []
    for node in nodes:
        if node.python.split(".")[:2] != driver.python.split(".")[:2]:
            problems.append(f"{node.host} has Python {node.python}, here is {driver.python}")
        problems += [
            f"{node.host} has {name} {node.versions.get(name, 'not')}, here is {version}"
            for name, version in driver.versions.items()
            if node.versions.get(name) != version
        ]
    if problems:
        return Check("same versions", FAIL, "; ".join(problems), "install the same constraints.txt on every node")
    return Check("same versions", OK, f"{len(nodes)} of {len(nodes)} nodes as here")


def judge_clocks(skews_s: dict[str, float]) -> Check:
    """Skew of each host against this one."""
    host, skew = max(skews_s.items(), key=lambda item: abs(item[1]))
    seen = f"at most {abs(skew):.1f} s apart ({host})"
    if abs(skew) > MAX_SKEW_S:
        return Check("clocks", FAIL, seen, f"set the clock of {host}: leases of runs and datasets depend on it (NTP)")
    return Check("clocks", OK, seen)


def judge_space(nodes: Sequence[Node]) -> Check:
    """Room in shared memory and on disks."""
    problems, hint = [], ""
    for node in nodes:
        if node.shm_bytes < MIN_SHM_BYTES:
            problems.append(f"{node.host}: {_size(node.shm_bytes)} free in /dev/shm")
            hint = hint or "give containers a larger /dev/shm (docker run --shm-size=4g; an emptyDir of medium Memory)"
        for folder, (free, total) in node.disks.items():
            if free < MIN_DISK_BYTES or free < (1 - FULL_SHARE) * total:
                problems.append(f"{node.host}: {_size(free)} of {_size(total)} free for {folder}")
                hint = "free the disk, or point TMPDIR and STARTUP_RAY_CACHE to a larger one"
    if problems:
        return Check("space", WARN, "; ".join(problems), hint)
    least = min(free for node in nodes for free, _ in node.disks.values())
    return Check("space", OK, f"{_size(least)} of disk or more, {_size(min(n.shm_bytes for n in nodes))} of /dev/shm")


def judge_storage(storage: str, driver_error: str, nodes: Sequence[Node]) -> Check:
    blind = [node for node in nodes if node.storage_error]
    if driver_error:
        return Check("storage", FAIL, driver_error, "set `storage` to a place that can be written")
    if blind:
        seen = f"{blind[0].host}: {blind[0].storage_error}"
        return Check("storage", FAIL, seen, "set `storage` to a shared file system, or to s3://... or gs://...")
    return Check("storage", OK, f"{storage}: written here, read and written on {len(nodes)} of {len(nodes)} nodes")


def judge_gpus(of_ray: float, of_tensorflow: int, note: str = "") -> Check:
    """GPUs that Ray has and those that TensorFlow sees in a worker that was given one."""
    if not of_ray:
        return Check("gpus", OK, "none; training runs on CPUs")
    if not of_tensorflow:
        seen = f"Ray has {of_ray:g} GPUs, TensorFlow on a worker sees none{note}"
        return Check("gpus", FAIL, seen, "install the package with its extra: pip install 'startup-ray[gpu]'")
    return Check("gpus", OK, f"Ray has {of_ray:g} GPUs, TensorFlow sees them")


def _disk(folder: Path) -> tuple[int, int]:
    """Free and total bytes of the disk that holds, or would hold, a folder."""
    while not folder.exists():
        folder = folder.parent
    usage: Any = shutil.disk_usage(folder)
    return usage.free, usage.total


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
