"""A cluster that an autoscaler makes grow: a head without room, and nodes with a declared GPU that come when asked for.

    with Head(folder) as head:
        words = head.told("grow")           # what this module's function of that name tells, run beside the head

Its nodes are Ray's own fake ones, processes on this machine, under Ray's own autoscaler of version 2.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import keeper
from tests.submit.head import free_ports

START_S = 180
"""For a start on a machine that is busy with other things."""
MOST = 8
"""GPU nodes."""
IDLE_S = 3
STORE = 80_000_000
_HEAD_ID = "f" * 51 + "00000"
_HEAD_TYPE = "ray.head.default"


class Head:
    """Use as a context. All that runs here ends with the process that has started it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))  # short, for sockets lie below it
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.env |= {"HOME": str(self.folder), "RAY_TMPDIR": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0"}

    def __enter__(self) -> Self:
        port, client, agent, metrics = free_ports(4)
        self.address = f"127.0.0.1:{port}"
        config = self.folder / "cluster.yaml"
        config.write_text(json.dumps(_configuration(self.address)))
        more = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(metrics),
        }
        words = [
            *("ray", "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client}"),
            *(f"--dashboard-agent-listen-port={agent}", "--min-worker-port=0", "--max-worker-port=0"),
            *("--num-cpus=0", f"--object-store-memory={STORE}"),
            *(f"--temp-dir={self.folder}", f"--autoscaling-config={config}"),
        ]
        with open(self.folder / "head.log", "w") as log:
            self._process = keeper.start(words, self.env | more, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str) -> subprocess.Popen[str]:
        """A process that joins, and runs the function."""
        words = [sys.executable, "-m", "tests.cluster.growing", self.address, name]
        return keeper.start(words, self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def told(self, name: str) -> dict[str, Any]:
        process = self.start(name)
        out, err = process.communicate(timeout=START_S)
        assert process.returncode == 0, f"{err[-3000:]}\n{(self.folder / 'head.log').read_text()[-3000:]}"
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def _configuration(address: str) -> dict[str, Any]:
    node = {"CPU": 2, "GPU": 1, "object_store_memory": STORE}
    module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": MOST,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": module,
            "launch_multiple": True,
            "head_node_id": _HEAD_ID,
            "gcs_address": address,
            "disable_node_updaters": True,
        },
        "available_node_types": {
            _HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": MOST},
        },
        "head_node_type": _HEAD_TYPE,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
        **{f"{name}_commands": [] for name in commands},
    }


def grow() -> dict[str, Any]:
    """Ask for more than may be, then for two workers, and wait until their nodes are gone again."""
    from startup_ray.job import ScalingOptions
    from startup_ray.trainers.preflight import require_room, room_to_come

    lines = _Lines()
    wanted = ScalingOptions(workers=2, gpus_per_worker=1)
    found: dict[str, Any] = {"refused": _error(lambda: require_room(wanted.model_copy(update={"workers": 16})))}
    found["to_come"] = room_to_come(wanted)
    began = time.monotonic()
    found["room"] = require_room(wanted)
    found["grown_s"] = time.monotonic() - began
    found["nodes"] = _nodes()
    _await_that(lambda: _nodes() == 0)
    found["gone_s"] = time.monotonic() - began
    return found | {"lines": lines.told}


def fail() -> dict[str, Any]:
    """What a cluster tells that does not grow in time, and one whose limits cannot be seen."""
    from startup_ray import growth, reach
    from startup_ray.job import ScalingOptions
    from startup_ray.trainers.preflight import require_room

    each, clock = {"CPU": 1.0, "GPU": 1.0}, iter((0.0, 0.0, 901.0))
    limits = reach.Limits((reach.NodeType(each, 2 * MOST),))  # further than the autoscaler knows
    found = {"late": _error(lambda: growth.grow(each, 16, limits, asker="training", clock=lambda: next(clock)))}
    reach.configuration = lambda: None
    found["unseen"] = _error(lambda: require_room(ScalingOptions(workers=16, gpus_per_worker=1)))
    return found


def wait() -> dict[str, Any]:
    """Wait for two nodes."""
    from startup_ray.job import ScalingOptions
    from startup_ray.trainers.preflight import require_room

    require_room(ScalingOptions(workers=2, gpus_per_worker=1))
    return {}


def watch() -> dict[str, Any]:
    """Say when somebody asks for nodes, and wait until nobody does and none is left."""
    from ray.util import placement_group_table

    def asked() -> int:
        return sum(group["state"] != "REMOVED" for group in placement_group_table().values())

    _await_that(lambda: asked() == 0)
    sys.stdout.write("nobody asks\n")
    sys.stdout.flush()
    _await_that(lambda: asked() == 1)
    sys.stdout.write("somebody asks\n")
    sys.stdout.flush()
    _await_that(lambda: asked() == _nodes() == 0)
    return {}


class _Lines(logging.Handler):
    """What the project logs."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        log = logging.getLogger("startup_ray")
        log.setLevel(logging.INFO)
        log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def _error(function: Callable[[], object]) -> str:
    from startup_ray.errors import ClusterError

    try:
        function()
    except ClusterError as error:
        return error.message
    raise AssertionError("no error")


def _nodes() -> int:
    import ray

    return len([node for node in ray.nodes() if node["Alive"]]) - 1


def _await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S / 2
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def _join(address: str) -> None:
    import ray

    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(tuple(address.split(":")), timeout=1).close()  # type: ignore[arg-type]
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def main(address: str, name: str) -> None:
    _join(address)
    found = {"grow": grow, "fail": fail, "wait": wait, "watch": watch}[name]()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
