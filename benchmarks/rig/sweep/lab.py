"""Runs programs under the meter, each in a folder and with a home, and maybe a Ray, of its own."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from rig import environment, meter
from rig.meter import Usage
from rig.sweep.notes import NOTES, Search, read_answer
from rig.sweep.space import Order, Size
from rig.training.group import python_path

LIMIT_S = 1_200.0
KERAS_TUNER = Path(__file__).parents[2] / "keras-tuner.txt"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A program that has ended well."""

    usage: Usage
    tensorflows: int
    """Processes that have loaded TensorFlow, among those that lived for a second after it."""
    answer: Mapping[str, Any]
    search: Search | None
    """Of a program that has noted its epochs."""


class Loaded:
    """Looks for TensorFlow's library in the memory of processes (proc_pid_maps(5))."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def __call__(self, alive: Mapping[int, str]) -> None:
        self.pids |= {pid for pid in alive if pid not in self.pids and _has_tensorflow(pid)}


@dataclass(frozen=True, kw_only=True)
class Lab:
    folder: Path
    size: Size
    _numbers: Iterator[int] = field(default_factory=count)

    def prepare(self) -> None:
        """Dataset, warm cache and arrays, for all that follows."""
        self.ours("prepare")

    def ours(self, way: str, **order: Any) -> Done:
        return self._run([sys.executable, "-m", "rig.sweep.ours", way], order)

    def optuna(self, **order: Any) -> Done:
        return self._run([sys.executable, "-m", "rig.sweep.optuna_search"], order)

    def keras_tuner(self, **order: Any) -> Done:
        python = environment.install("keras-tuner", KERAS_TUNER)
        return self._run([str(python), "-m", "rig.sweep.hyperband"], order)

    def _run(self, command: list[str], wanted: Mapping[str, Any]) -> Done:
        """Run it in a fresh folder.

        Raises:
            RuntimeError: it failed; with the end of what it printed.
        """
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        order = Order(
            folder=str(folder),
            size=self.size,
            storage=str(self.folder / "storage"),
            arrays=str(self.folder / "arrays.npz"),
        )
        env, loaded = self._environment(folder), Loaded()
        try:
            began = time.time()
            usage = meter.run([*command, replace(order, **wanted).text()], limit_s=LIMIT_S, env=env, watch=loaded)
            search = Search.read(folder, began) if (folder / NOTES).exists() else None
            return Done(usage=usage, tensorflows=len(loaded.pids), answer=read_answer(folder), search=search)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _environment(self, folder: Path) -> dict[str, str]:
        return environment.private(folder) | {
            "PYTHONPATH": python_path(),
            "STARTUP_RAY_CACHE": str(self.folder / "cache"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }


def _has_tensorflow(pid: int) -> bool:
    try:
        return "libtensorflow" in Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:  # it has just ended
        return False
