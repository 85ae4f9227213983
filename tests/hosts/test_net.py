"""The hosts of `net.py` themselves."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hosts.net import Host, Net

KILLED = """
import sys
from tests.hosts.net import Net
with Net() as net:
    hosts = [net.host("one"), net.host("two")]
    sleeping = [host.start("bash", "-c", "setsid --fork sleep 1000; sleep 1000") for host in hosts]
    while not all(len(host.processes()) == 2 for host in hosts):
        pass
    print(net.folder, net.switch.pid, *(pid for host in hosts for pid in (host.pid, *host.processes())), flush=True)
    sys.stdin.read()
"""


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended may stand in the table until somebody asks for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def answers(here: Host, there: Host, port: int) -> bool:
    try:
        with here.network():
            socket.create_connection((there.address, port), timeout=1).close()
    except TimeoutError:
        return False
    return True


@pytest.mark.ray
def test_a_host_has_its_own_network_and_can_be_cut_off() -> None:
    with Net() as net:
        one, two = net.host("one"), net.host("two")
        with one.network():
            listening = socket.create_server((one.address, 5_000))
        with listening:
            assert answers(two, one, 5_000)
            assert answers(net.switch, one, 5_000)
            net.cut(one)
            assert not answers(two, one, 5_000)
            net.mend(one)
            assert answers(two, one, 5_000)
        with pytest.raises(ConnectionRefusedError):
            answers(two, one, 5_000)
        with pytest.raises(OSError, match="unreachable"), one.network():
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        assert one.run("hostname").stdout == "one\n"


def test_a_killed_host_runs_nothing_and_refuses_connections() -> None:
    with Net() as net:
        one, two = net.host("one"), net.host("two")
        sleeping = one.start("bash", "-c", "setsid --fork sleep 1000; sleep 1000")
        while len(one.processes()) < 2:
            time.sleep(0.01)
        one.kill()
        assert one.processes() == {}
        sleeping.wait(5)
        with pytest.raises(ConnectionRefusedError):
            answers(two, one, 5_000)


def test_nothing_outlives_a_killed_test() -> None:
    words = [sys.executable, "-c", KILLED]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        folder, *numbers = killed.stdout.readline().split()
        pids = [int(number) for number in numbers]
        assert len(pids) >= 7  # a shell may be seen before it has become its last command
        killed.send_signal(signal.SIGKILL)
    try:
        deadline = time.monotonic() + 10
        while living := [pid for pid in pids if lives(pid)]:
            assert time.monotonic() < deadline, living
            time.sleep(0.05)
    finally:
        shutil.rmtree(folder)
