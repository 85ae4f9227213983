"""A real head with the Jobs API and a token: ports, temporary folder and home of its own; it ends with the tests."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from startup_ray.errors import LostError
from startup_ray.submit.address import Cluster
from startup_ray.submit.jobs_api import JobsApi

RAY = Path(sys.executable).with_name("ray")
START_S = 180.0
_PR_SET_PDEATHSIG = 1


class Head:
    def __init__(self, cpus: int = 4) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))  # sockets want a short path
        self.token = secrets.token_hex(16)
        token = self.folder / "token"
        token.write_text(self.token)
        token.chmod(0o600)
        (self.folder / "home").mkdir()
        port, dashboard, agent, client = free_ports(4)
        self.url, self.gcs = f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": str(self.folder / "home"),
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "STARTUP_RAY_CACHE": str(self.folder / "cache"),
            "PATH": f"{RAY.parent}:{os.environ['PATH']}",
        }
        words = [str(RAY), "start", "--head", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"]
        words += [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        words += [f"--ray-client-server-port={client}", f"--temp-dir={self.folder}/ray", "--node-ip-address=127.0.0.1"]
        self.log = self.folder / "head.log"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                words, env={**self.env, "RAY_AUTH_MODE": "token"}, stdout=out, stderr=out, preexec_fn=_die_with_parent
            )

    @property
    def api(self) -> JobsApi:
        return JobsApi(Cluster(self.url, self.token))

    def wait(self) -> None:
        """Until it takes jobs."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.api.versions()
                return
            except LostError:
                time.sleep(0.3)
        raise TimeoutError(self.log.read_text())

    def kill(self) -> None:
        """All of its processes at once."""
        for process in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            below = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            _, alive = psutil.wait_procs(below, timeout=20)
            for process in alive:
                process.kill()
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _die_with_parent() -> None:
    """`ray start --block` ends its children at SIGTERM, also if nobody is left to send it (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
