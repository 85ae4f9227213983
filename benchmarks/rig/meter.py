"""CPU and memory of a command and of everything that it starts, daemons included. Linux only.

    become_reaper()
    usage = run(["startup-ray", "ingest", "job.yaml"], limit_s=600)
    usage.cpu_s, usage.peak_bytes

The processes are followed in /proc. `getrusage` would not do: Ray's raylet ignores SIGCHLD, and then the kernel
adds the time of its dead workers to nobody (times(2)). This process is made the reaper of orphans (prctl(2),
PR_SET_CHILD_SUBREAPER), so a daemon stays in the tree. What is lost is what a process that is not our child does
between the last look and its end, TICK_S at most. `burner.py` tells how right all this is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TICK_S = 0.05
MEMORY_TICKS = 20
"""Memory is looked at once a second: the kernel walks every page table for it."""
GRACE_S = 15.0
"""Daemons may outlive their command for so long; then they are killed."""

_HERTZ = os.sysconf("SC_CLK_TCK")
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # linux/prctl.h
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """User and system time of all processes."""
    peak_bytes: int
    """Largest sum of proportional set sizes (PSS), in which a shared page counts once."""
    cpu_s_by_name: Mapping[str, float]
    """The same, by what each process calls itself."""


def become_reaper() -> None:
    """From now on orphans among our descendants become our children."""
    _libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """For `preexec_fn`: the process is asked to end when the one that started it is gone, however that ended."""
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


def run(
    command: Sequence[str],
    *,
    limit_s: float,
    env: Mapping[str, str] | None = None,
    watch: Callable[[Mapping[int, str]], None] = lambda _: None,
) -> Usage:
    """Run a command to its end, and leave nothing behind that it started.

    Args:
        env: the whole environment, by default this process's.
        watch: called about once a second with the pids and names of all that lives.

    Raises:
        RuntimeError: it failed or took longer than `limit_s`; with the end of what it printed.
    """
    peak_bytes, began = 0, time.monotonic()
    with _started(command, env) as (child, log):
        tree = _Tree(child.pid)
        try:
            for tick in _ticks(limit_s):
                tree.look()
                if not tree.is_running:
                    break
                if tick % MEMORY_TICKS == 0:
                    peak_bytes = max(peak_bytes, sum(_pss(pid) for pid in tree.alive))
                    watch({pid: process.name for pid, process in tree.alive.items()})
            wall_s = time.monotonic() - began
        finally:
            tree.end()
        if child.wait() != 0:
            raise RuntimeError(f"exit code {child.returncode} of {' '.join(command)}:\n{log.read_text()[-2000:]}")
    return Usage(wall_s=wall_s, cpu_s=tree.cpu_s, peak_bytes=peak_bytes, cpu_s_by_name=tree.by_name())


@dataclass
class _Process:
    name: str = ""
    cpu_s: float = 0.0


class _Tree:
    """A child of this process and all that came from it."""

    def __init__(self, child: int) -> None:
        self.alive = {child: _Process()}
        self._child = child
        self._dead: list[_Process] = []
        self._strangers = set(_pids()) - {child}

    @property
    def is_running(self) -> bool:
        return self._child in self.alive

    @property
    def cpu_s(self) -> float:
        return sum(process.cpu_s for process in self._all())

    def by_name(self) -> dict[str, float]:
        cpu_s: Counter[str] = Counter()
        for process in self._all():
            cpu_s[process.name] += process.cpu_s  # type: ignore[assignment]
        return dict(sorted(cpu_s.items(), key=lambda pair: -pair[1]))

    def look(self) -> None:
        """Find what is new, and read all clocks."""
        present = set(_pids())
        self._strangers &= present
        for pid in sorted(present - self._strangers - set(self.alive)):
            parent = _stat(pid).parent
            if parent in self.alive or parent == os.getpid():
                self.alive[pid] = _Process()
            elif parent in self._strangers:
                self._strangers.add(pid)
        for pid, process in list(self.alive.items()):
            stat = _stat(pid)
            process.cpu_s = max(process.cpu_s, stat.cpu_s)
            process.name = _name(pid) or process.name  # Ray's workers change theirs
            if stat.state in "ZX":
                self._dead.append(self.alive.pop(pid))
                self._strangers.add(pid)  # as long as nobody has reaped it
                if stat.parent == os.getpid() and pid != self._child:
                    with suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)

    def end(self) -> None:
        """Wait for what still lives, at last not politely."""
        if self.is_running:
            os.kill(self._child, signal.SIGTERM)
        if not self._has_ended(GRACE_S):
            for pid in self.alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._has_ended(GRACE_S)

    def _has_ended(self, limit_s: float) -> bool:
        with suppress(RuntimeError):
            for _ in _ticks(limit_s):
                self.look()
                if not self.alive:
                    return True
        return False

    def _all(self) -> list[_Process]:
        return [*self._dead, *self.alive.values()]


@contextmanager
def _started(command: Sequence[str], env: Mapping[str, str] | None) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
        )
        yield child, Path(log.name)


def _ticks(limit_s: float) -> Iterator[int]:
    began = time.monotonic()
    tick = 0
    while time.monotonic() - began < limit_s:
        yield tick
        tick += 1
        time.sleep(max(0.0, began + tick * TICK_S - time.monotonic()))
    raise RuntimeError(f"still running after {limit_s} s")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class _Stat(NamedTuple):
    parent: int = 0
    state: str = "X"
    cpu_s: float = 0.0


def _stat(pid: int) -> _Stat:
    """Of a process, dead ones included until they are reaped (proc_pid_stat(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return _Stat()
    return _Stat(int(fields[1]), fields[0].decode(), (int(fields[11]) + int(fields[12])) / _HERTZ)


def _name(pid: int) -> str:
    """The program and its first argument that is no option, without their folders."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return ""
    plain = [word.rpartition("/")[2] for word in words if word and not word.startswith("-")]
    return " ".join(plain[:2])[:60]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
