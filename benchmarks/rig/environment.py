"""Where contestants run: environments of their own, for peers interpreters of their own too; and on what machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def install(name: str, requirements: Path) -> Path:
    """The interpreter of a peer's virtual environment, which is made in the user's cache if it is not there.

    Args:
        requirements: all packages with their versions.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
    place = cache / "startup_ray" / "benchmarks" / f"{name}-{digest}"
    python, ready = place / "bin" / "python", place / ".ready"
    if not ready.exists():
        print(f"installing {name} into {place}", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "--no-deps", "-r", str(requirements)], check=True)
        ready.touch()
    return python


def private(folder: Path) -> dict[str, str]:
    """Environment with a home, a Ray and temporary files of its own; no proxy, and no Ray that runs already."""
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("RAY_", "XDG_", "STARTUP_RAY_"))
    }
    own = {"HOME": "home", "RAY_TMPDIR": "ray", "TMPDIR": "tmp"}
    for name in own.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    return kept | {name: str(folder / place) for name, place in own.items()}


def machine(packages: Iterable[str]) -> str:
    """One line: cores, memory, load, versions."""
    names = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    cores = f"{len(os.sched_getaffinity(0))} cores ({', '.join(sorted(set(names)))}), {memory_gb:.0f} GB"
    return f"{cores}, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
