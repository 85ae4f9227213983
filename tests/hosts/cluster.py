"""A Ray cluster on hosts of `net.py`, started by the scripts that the project ships, and commands on its head.

with Cluster() as cluster:
    document = cluster.start("train", "job.yaml").wait()
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.hosts.net import Host, Net

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "cluster" / "local"
STORE = ("--object-store-memory", "80000000")
START_S = 100
"""For a start on a machine that is busy with other things."""

OTHER_WORK = """
import sys
import ray
ray.init(log_to_driver=False)
@ray.remote(num_cpus=1)
class Work:
    def begin(self): pass
works = [Work.options(resources={f"node:{address}": 0.001}).remote() for address in sys.argv[1:]]
ray.get([work.begin.remote() for work in works])
print("begun", flush=True)
sys.stdin.read()
"""


def environment(host: Host, token: Path, cpus: int) -> dict[str, str]:
    """What the scripts are told on a host."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_TOKEN_PATH": str(token),
        "STARTUP_RAY_CACHE": str(host.folder / "cache"),
        "STARTUP_RAY_DIR": str(host.folder / "ray"),
        "STARTUP_RAY_IP": host.address,
        "STARTUP_RAY_CPUS": str(cpus),
    }


def living_nodes(head: Host) -> dict[str, str]:
    """The nodes that the head of a cluster counts on: id -> address."""
    token = Path(head.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    asked = urllib.request.Request(
        "http://127.0.0.1:8265/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
    )
    with head.network(), urllib.request.urlopen(asked, timeout=30) as answer:
        nodes = [node["raylet"] for node in json.load(answer)["data"]["summary"]]
    return {node["nodeId"]: node["nodeManagerAddress"] for node in nodes if node["state"] == "ALIVE"}


class Cluster:
    """Use as a context: a head that runs no work, and two workers with room for two processes each."""

    def __enter__(self) -> Self:
        self.net = Net().__enter__()
        try:
            token = self.net.folder / "token"
            self.head, *self.workers = (self.net.host(name) for name in ("head", "one", "two"))
            for host in self.net.hosts:
                host.env |= environment(host, token, 0 if host is self.head else 2)
            self.folder = self.head.home
            """Where commands run; all hosts see it."""
            self.address = f"{self.head.address}:6379"
            self.head.run(str(SCRIPTS / "token.sh"))
            self.head.run(str(SCRIPTS / "head.sh"), *STORE, timeout_s=START_S)
            join = (str(SCRIPTS / "worker.sh"), self.head.address, *STORE)
            for joining in [worker.start(*join, stderr=subprocess.PIPE) for worker in self.workers]:
                _, told = joining.communicate(timeout=START_S)
                assert joining.returncode == 0, told
        except BaseException:
            self.net.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.net.__exit__(kind, error, trace)

    def start(self, *words: str) -> Command:
        """A command of ours on the head."""
        return Command(self, *words)

    def alive(self) -> set[str]:
        """Addresses of the hosts that the head counts on."""
        return set(living_nodes(self.head).values())

    @contextmanager
    def other_work(self) -> Iterator[Callable[[], None]]:
        """One CPU of each worker is taken until the block ends, or until what it is given is called.

        So two processes that would be put on one host if they could are put on both.
        """
        addresses = [worker.address for worker in self.workers]
        words = (sys.executable, "-c", OTHER_WORK, *addresses)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with self.head.start(*words, env=self.joined, **pipes) as driver:
            assert driver.stdin is not None
            assert driver.stdout is not None
            assert driver.stdout.readline() == "begun\n"
            try:
                yield driver.stdin.close
            finally:
                driver.stdin.close()

    @property
    def joined(self) -> dict[str, str]:
        """What a process on the head needs to join."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token"}


class Command:
    """`startup-ray` in a process of its own on the head, joined to the cluster."""

    def __init__(self, cluster: Cluster, *words: str) -> None:
        # Not pipes: they would fill, and nobody reads them while the command runs.
        place = Path(tempfile.mkdtemp(dir=cluster.folder))
        self._out, self._err = place / "out", place / "err"
        words = (sys.executable, "-m", "startup_ray", *words, "--json")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = cluster.head.start(
                *words, env=cluster.joined, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def wait(self, timeout_s: float = 120) -> dict[str, Any]:
        """The document that it prints; it must not fail."""
        assert self.process.wait(timeout_s) == 0, self.told()
        document: dict[str, Any] = json.loads(self._out.read_text())
        return document

    def told(self) -> str:
        """What it has said on stderr so far."""
        return self._err.read_text()


def await_that(condition: Callable[[], T | None], what: str, timeout_s: float = 120) -> T:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return found
