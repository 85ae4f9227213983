"""The scripts of `cluster/local`: a token that nobody else can read, a node that comes back, and a stop that is exact.

Most is tested with a stand-in for `ray`, whose raylet sleeps. What starts something that stays is run on a host of its
own (`tests/hosts/net.py`), so that nothing of it can stay behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import SCRIPTS, START_S, STORE, await_that, environment, living_nodes
from tests.hosts.net import Host, Net, why_not

pytestmark = pytest.mark.ray  # seconds, and Ray itself for two

STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"$HOME/calls"
env >"$HOME/environment"
if [[ -e $HOME/broken ]]; then
    echo "no luck"
    exit 1
fi
echo "192.0.2.1:6379" >"$STARTUP_RAY_DIR/ray_current_cluster"
ln -sf "$(command -v sleep)" "$HOME/raylet"
"$HOME/raylet" 1000 &
env -i sleep 2000 &
"""
"""The last is as a process that has written over its environment."""

BYSTANDER = 'ln -s "$(command -v sleep)" "$HOME/raylet"; "$HOME/raylet" 3000; true'
"""What `ray stop` would end."""

NODE_PORTS = {
    6379: "GCS",
    6380: "raylet",
    6381: "objects",
    6382: "runtime environments",
    6383: "agent, gRPC",
    6384: "agent, HTTP",
    6385: "metrics of the node",
    6386: "metrics of the autoscaler",
    6387: "metrics of the dashboard",
    8265: "dashboard and Jobs API",
    10001: "Ray Client",
}
LOOPBACK_ONLY = {8265}
METRICS = {6385, 6386, 6387}
"""Figures for Prometheus, which sends no token: names of hosts, jobs and tasks can be read there."""
HEALTH = {"/api/healthz", "/api/local_raylet_healthz"}
OPEN_PATHS = {
    6384: HEALTH,
    8265: HEALTH
    | {"/", "/favicon.ico", "/api/authentication_mode", "/api/authenticate", "/api/gcs_healthz", "/-/healthz"},
}
"""What else answers without a token: whether it lives, and the empty page that asks for a token."""
CLOSED_PATHS = {
    "/api/jobs/",
    "/api/job_agent/jobs/",
    "/api/version",
    "/nodes?view=summary",
    "/logs",
    "/api/v0/nodes",
    "/api/v0/logs/file?node_id=x&filename=y",
    "/api/serve/applications/",
    "/api/packages/gcs/x",
    "/worker/traceback?pid=1",
    "/get_or_create_runtime_env",
    "/delete_runtime_env_if_possible",
    "/metrics",
    "/no-such-thing",
}
CALLS = {
    6379: "NodeInfoGcsService/GetAllNodeInfo",
    6380: "NodeManagerService/GetNodeStats",
    6381: "ObjectManagerService/Pull",
    6383: "ReporterService/GetTraceback",
    10001: "RayletDriver/ClusterInfo",
}
LISTENERS = """
import json, psutil
found = [list(c.laddr) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
print(json.dumps(found))
"""
ASK = """
import http.client, json, sys
status = {}
for path in sys.argv[3:]:
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
    try:
        connection.request("GET", path)
        status[path] = connection.getresponse().status
    except http.client.HTTPException:
        status[path] = 0
    finally:
        connection.close()
print(json.dumps(status))
"""
CALL = """
import sys, grpc
try:
    grpc.insecure_channel(sys.argv[1]).unary_unary("/ray.rpc." + sys.argv[2])(b"", timeout=20)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ray").write_text(STAND_IN)
    (tmp_path / "bin" / "ray").chmod(0o755)
    return tmp_path


def run(home: Path, script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A script that starts nothing that stays."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "STARTUP_RAY_", "XDG_"))}
    own = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "STARTUP_RAY_DIR": str(home / "ray")}
    return subprocess.run([SCRIPTS / script, *words], env=kept | own | env, capture_output=True, text=True, timeout=60)


def test_a_token_is_made_once_and_nobody_else_can_read_it(home: Path) -> None:
    assert run(home, "token.sh").returncode == 0
    path = home / ".config" / "startup_ray" / "token"
    token = path.read_text()
    assert len(bytes.fromhex(token)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    again = run(home, "token.sh")
    assert again.returncode == 0
    assert token not in again.stdout + again.stderr
    assert path.read_text() == token
    assert [file.name for file in path.parent.iterdir()] == ["token"]


def test_a_token_lies_where_it_is_wanted(home: Path) -> None:
    path = home / "some where" / "else"
    assert run(home, "token.sh", RAY_AUTH_TOKEN_PATH=str(path)).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (home / ".config").exists()


@pytest.mark.parametrize("words", [("head.sh",), ("worker.sh", "192.0.2.1")])
@pytest.mark.parametrize(
    ("mode", "text", "told"),
    [
        (None, "", "no token in"),
        (0o644, "secret", "mode 644"),
        (0o640, "secret", "mode 640"),
        (0o602, "secret", "mode 602"),
        (0o600, "", "is empty"),
    ],
)
def test_there_is_no_open_start(home: Path, words: tuple[str, ...], mode: int | None, text: str, told: str) -> None:
    path = home / "token"
    if mode is not None:
        path.write_text(text)
        path.chmod(mode)
    # Neither a token in the environment nor a wish for an open cluster changes that.
    done = run(home, *words, RAY_AUTH_TOKEN_PATH=str(path), RAY_AUTH_TOKEN="secret", RAY_AUTH_MODE="disabled")
    assert done.returncode == 1
    assert told in done.stderr
    assert not (home / "calls").exists()
    assert not (home / "ray").exists()


def test_a_token_or_a_folder_of_somebody_else_is_refused(home: Path) -> None:
    path = home / "token"
    path.write_text("secret")
    path.chmod(0o600)
    try:
        os.chown(path, 65_534, 65_534)
    except PermissionError:
        pytest.skip("only root can give a file away")
    assert "belongs to somebody else" in run(home, "head.sh", RAY_AUTH_TOKEN_PATH=str(path)).stderr
    os.chown(path, os.geteuid(), os.getegid())
    (home / "ray").mkdir()
    os.chown(home / "ray", 65_534, 65_534)
    for script in ("head.sh", "stop.sh"):
        done = run(home, script, RAY_AUTH_TOKEN_PATH=str(path))
        assert done.returncode == 1
        assert "is not a folder of yours" in done.stderr
    assert not (home / "calls").exists()


def test_a_worker_wants_to_know_its_head(home: Path) -> None:
    done = run(home, "worker.sh")
    assert done.returncode == 1
    assert "which head?" in done.stderr


def test_a_stop_of_nothing_is_no_error(home: Path) -> None:
    assert run(home, "stop.sh").returncode == 0
    assert not (home / "ray").exists()


@pytest.fixture
def machine() -> Iterator[Host]:
    if why_not():
        pytest.skip(why_not())
    with Net() as net:
        host = net.host("machine")
        host.env |= environment(host, host.folder / "token", cpus=1)
        host.run(str(SCRIPTS / "token.sh"))
        yield host


@pytest.fixture
def pretended(machine: Host) -> Host:
    """A machine where `ray` is the stand-in."""
    (machine.home / "bin").mkdir()
    (machine.home / "bin" / "ray").write_text(STAND_IN)
    (machine.home / "bin" / "ray").chmod(0o755)
    machine.env["PATH"] = f"{machine.home / 'bin'}:{machine.env['PATH']}"
    return machine


def test_ray_is_started_with_the_token_and_seen_to_by_the_head(pretended: Host) -> None:
    env = {"RAY_AUTH_TOKEN": "another", "RAY_AUTH_MODE": "disabled", "RAY_health_check_timeout_ms": "7000"}
    told = pretended.run(str(SCRIPTS / "head.sh"), "--resources", '{"a b": 1}', env=env).stderr
    token = pretended.folder / "token"
    assert f"RAY_ADDRESS=192.0.2.1:6379 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}\n" in told
    assert token.read_text() not in told
    found = dict(line.split("=", 1) for line in (pretended.home / "environment").read_text().splitlines())
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert "RAY_AUTH_TOKEN" not in found
    assert found["RAY_health_check_timeout_ms"] == "7000"
    assert found["RAY_health_check_period_ms"] == "1000"
    call = (pretended.home / "calls").read_text()
    assert call.startswith("start --head ")
    assert "--dashboard-host=127.0.0.1 " in call
    assert call.endswith('--resources {"a b": 1}\n')
    assert Path(pretended.env["STARTUP_RAY_DIR"]).stat().st_mode & 0o777 == 0o700


def test_a_raylet_that_ends_comes_back_and_a_stop_is_exact(pretended: Host) -> None:
    bystander = pretended.start("bash", "-c", BYSTANDER)
    await_that(lambda: sleeping(pretended, 3_000), "a bystander")
    pretended.run(str(SCRIPTS / "worker.sh"), "192.0.2.1")
    assert "--address=192.0.2.1:6379" in (pretended.home / "calls").read_text()
    before = sleeping(pretended, 1_000) | sleeping(pretended, 2_000)
    assert len(before) == 2
    os.kill(sleeping(pretended, 1_000).pop(), signal.SIGKILL)
    await_that(lambda: sleeping(pretended, 1_000) - before, "the raylet")
    after = sleeping(pretended, 1_000) | sleeping(pretended, 2_000)
    assert len(after) == 2
    assert not after & before  # what was left of the node has been ended too
    again = pretended.run(str(SCRIPTS / "worker.sh"), "192.0.2.1", check=False)
    assert again.returncode == 1
    assert "a node runs here already" in again.stderr
    pretended.run(str(SCRIPTS / "stop.sh"))
    assert set(pretended.processes()) == sleeping(pretended, 3_000) | parents(sleeping(pretended, 3_000))
    assert bystander.poll() is None
    pretended.close()
    bystander.wait()


def test_a_stop_finds_what_a_killed_supervisor_has_left(pretended: Host) -> None:
    pretended.run(str(SCRIPTS / "head.sh"))
    supervisor = next(pid for pid, text in pretended.processes().items() if "supervise.sh" in text)
    os.kill(supervisor, signal.SIGKILL)
    await_that(lambda: supervisor not in pretended.processes(), "the end of the supervisor")
    pretended.run(str(SCRIPTS / "stop.sh"))
    # Its pause between two looks, of a second, has nobody to be ended by.
    await_that(lambda: not pretended.processes(), "the end of all", timeout_s=5)


def test_a_start_that_fails_is_told_and_leaves_nothing(pretended: Host) -> None:
    (pretended.home / "broken").touch()
    done = pretended.run(str(SCRIPTS / "head.sh"), check=False)
    assert done.returncode == 1
    assert "no luck" in done.stderr
    assert pretended.processes() == {}


@pytest.fixture
def head(machine: Host) -> Host:
    machine.run(str(SCRIPTS / "head.sh"), *STORE, timeout_s=START_S)
    return machine


def test_nothing_but_what_is_listed_answers_without_a_token(head: Host) -> None:
    found: dict[int, set[str]] = {}
    for address, port in json.loads(head.run(sys.executable, "-c", LISTENERS).stdout):
        found.setdefault(port, set()).add(address.removeprefix("::ffff:"))
    assert {port for port in found if not 10_002 <= port <= 10_999} == set(NODE_PORTS)
    assert {port for port, addresses in found.items() if addresses == {"127.0.0.1"}} == LOOPBACK_ONLY
    paths = CLOSED_PATHS.union(*OPEN_PATHS.values())
    answered = {}
    for port in NODE_PORTS:
        place = "127.0.0.1" if port in LOOPBACK_ONLY else head.address
        status = json.loads(head.run(sys.executable, "-c", ASK, place, str(port), *paths).stdout)
        if any(status.values()):
            answered[port] = {path for path, code in status.items() if code != 401}
        else:  # it does not speak HTTP/1
            call = head.run(sys.executable, "-c", CALL, f"{place}:{port}", CALLS[port])
            assert call.stdout == "UNAUTHENTICATED\n", NODE_PORTS[port]
    assert {port for port, names in answered.items() if "/metrics" in names} == METRICS
    others = {port: names for port, names in answered.items() if port not in METRICS}
    assert {port: names for port, names in others.items() if names} == OPEN_PATHS


@pytest.mark.timeout(300)
def test_a_real_raylet_comes_back_and_a_stop_is_exact(head: Host) -> None:
    bystander = head.start("bash", "-c", BYSTANDER)
    await_that(lambda: sleeping(head, 3_000), "a bystander")
    of_head = set(head.processes())
    worker = {"STARTUP_RAY_DIR": str(head.folder / "worker"), "STARTUP_RAY_NODE_PORT": "6480"}
    head.run(str(SCRIPTS / "worker.sh"), head.address, *STORE, env=worker, timeout_s=START_S)
    first = set(await_that(lambda: two_of(living_nodes(head)), "the worker"))
    raylet = next(
        pid
        for pid, text in head.processes().items()
        if pid not in of_head and text.split()[0].endswith("/raylet") and "--node_manager_port=6480" in text
    )
    began = time.monotonic()
    os.kill(raylet, signal.SIGKILL)
    await_that(lambda: two_of(living_nodes(head)) and set(living_nodes(head)) - first, "the worker to come back")
    print(f"the worker came back {time.monotonic() - began:.1f} s after its raylet was killed")  # noqa: T201
    head.run(str(SCRIPTS / "stop.sh"), env=worker)
    of_ray = {pid: text for pid, text in head.processes().items() if "supervise.sh" not in text and text != "sleep 1"}
    assert set(of_ray) <= of_head
    await_that(lambda: len(living_nodes(head)) == 1, "the end of the worker")
    head.run(str(SCRIPTS / "stop.sh"))
    assert set(head.processes()) == sleeping(head, 3_000) | parents(sleeping(head, 3_000))
    assert bystander.poll() is None
    assert not (head.home / ".ray").exists()
    head.close()
    bystander.wait()


def sleeping(host: Host, seconds: int) -> set[int]:
    return {pid for pid, text in host.processes().items() if text.endswith(f" {seconds}") and "bash" not in text}


def parents(pids: set[int]) -> set[int]:
    return {int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in pids}


def two_of(nodes: dict[str, str]) -> dict[str, str]:
    return nodes if len(nodes) == 2 else {}
