"""Real hosts on one machine: network namespaces at a bridge, each with its own processes, address and host name.

    with Net() as net:
        one, two = net.host("one"), net.host("two")
        one.run("ping", "-c1", two.address)
        net.cut(two)                    # its packets go nowhere from here on
        two.kill()                      # all that runs there is gone

The namespaces have no names that could stay behind. The first process of each reads from a pipe that this process
holds: when this process ends, however it ends, that one does too, and the kernel ends all others of its namespace.
Nothing leads out of the bridge, so addresses may be the same as elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SUBNET = "10.77.0"
TOOLS = ("ip", "unshare", "nsenter")
NAMESPACES = ("--net", "--uts", "--pid")
KILL_S = 30.0
FIRST = 'hostname "$1" && ip link set lo up && echo up && read -r; exit 0'
"""Bash, because it buries the orphans of its namespace; processes of which the last trace stays would look alive."""


@cache
def why_not() -> str:
    """Why there can be no hosts here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Net() as net:
            net.host("trial")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces here: {getattr(error, 'stderr', '') or error}".strip()
    return ""


class Host:
    """A host of its own. `env` is the environment of what is run there; `folder` is its own and holds its home."""

    def __init__(self, name: str, folder: Path, address: str = "") -> None:
        self.name, self.folder, self.address = name, folder, address
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.env = {**os.environ, "HOME": str(self.home)}
        for variable in [name for name in self.env if name.startswith(("RAY_", "STARTUP_RAY_", "XDG_"))]:
            del self.env[variable]
        words = ["unshare", *NAMESPACES, "--mount-proc", "--fork", "--kill-child=SIGKILL", "bash", "-c", FIRST, "-"]
        self._process = subprocess.Popen(
            [*words, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "up\n":
            _, told = self._process.communicate()
            raise subprocess.CalledProcessError(self._process.returncode, words, stderr=told)
        self.pid = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text())
        """Of the host's first process, as seen from here."""

    def words(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", *NAMESPACES, "--mount", f"--wd={self.home}", "--", *words]

    def start(self, *words: str, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """A process of this host. It ends with the host, and not when the one that is returned is killed."""
        return subprocess.Popen(self.words(*words), env=self.env | dict(env or {}), text=True, **more)

    def run(
        self, *words: str, timeout_s: float = 60, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A process of this host, awaited.

        Raises:
            CalledProcessError: with its output, if `check`.
        """
        done = subprocess.run(
            self.words(*words), env=self.env | dict(env or {}), capture_output=True, text=True, timeout=timeout_s
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)} on {self.name}: exit code {done.returncode}\n{done.stderr}")
        return done

    @contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes in the block are those of the host."""
        with (
            open(f"/proc/{self.pid}/ns/net") as there,
            open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as here,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())

    def processes(self) -> dict[int, str]:
        """What runs here but the first process: number on this machine -> its first words."""
        return {pid: text for pid, text in _processes_of(self.pid).items() if pid != self.pid}

    def kill(self) -> None:
        """Kill all that runs here, at once. The network stays, and refuses connections, as that of a real host does."""
        self.run("bash", "-c", "kill -KILL -1", check=False)
        deadline = time.monotonic() + KILL_S
        while living := self.processes():  # on a busy machine a killed process lives until it gets some time
            assert time.monotonic() < deadline, living
            time.sleep(0.01)

    def close(self) -> None:
        """End the host."""
        self._process.kill()
        self._process.communicate()


class Net:
    """Use as a context: a bridge, and the hosts at it."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))  # short, for sockets lie below it
        self._made: list[Host] = []
        self.hosts: list[Host] = []
        try:
            self.switch = self._make("switch", 254)
            """Where the bridge is; other hosts reach what listens at its address."""
            self._ip("link", "add", "bridge", "type", "bridge")
            self._ip("link", "set", "bridge", "up")
            self._ip("address", "add", f"{self.switch.address}/24", "dev", "bridge")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._made:
            host.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def host(self, name: str) -> Host:
        """One more host, which reaches all others."""
        host = self._make(name, len(self.hosts) + 1)
        self.hosts.append(host)
        self._ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._ip("link", "set", name, "master", "bridge", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def cut(self, host: Host) -> None:
        """Pull the plug of a host: nothing is told to anybody."""
        self._ip("link", "set", host.name, "down")

    def mend(self, host: Host) -> None:
        self._ip("link", "set", host.name, "up")

    def _make(self, name: str, number: int) -> Host:
        host = Host(name, self.folder / name, f"{SUBNET}.{number}")
        self._made.append(host)
        return host

    def _ip(self, *words: str) -> None:
        words = ("nsenter", f"--target={self.switch.pid}", "--net", "--", "ip", *words)
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)


def _processes_of(first: int) -> dict[int, str]:
    namespace = os.readlink(f"/proc/{first}/ns/pid")
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has just ended
            if folder.name.isdigit() and os.readlink(folder / "ns/pid") == namespace:
                text = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if text:
                    found[int(folder.name)] = text
    return found


def _enter(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, 0):
        raise OSError(ctypes.get_errno(), "cannot enter the network of a host")
