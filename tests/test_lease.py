from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from startup_ray.errors import RunHeldError
from startup_ray.lease import Fence, hold
from startup_ray.storage import Folder
from tests.fakes import Clock


def _rewrite(folder: Folder, number: int, **fields: object) -> None:
    name = f"lease/{number}.json"
    folder.put_whole(name, json.dumps(json.loads(folder.read(name)) | fields).encode())


def test_a_second_writer_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    told = rf"process {os.getpid()} of .* on .* is writing this folder"
    with hold(folder), pytest.raises(RunHeldError, match=told), hold(folder):
        pass


def test_a_released_folder_is_free_and_numbers_only_rise(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    numbers = []
    for _ in range(4):
        with hold(folder) as lease:
            numbers.append(lease.fence.number)
    assert numbers == [1, 2, 3, 4]
    assert folder.list("lease") == ["3.json", "4.json"]


def test_another_hosts_lease_holds_until_it_expires_and_its_fence_falls(tmp_path: Path) -> None:
    folder, clock = Folder(str(tmp_path)), Clock()
    with hold(folder, clock=clock, ttl_s=30) as lost:
        _rewrite(folder, 1, host="elsewhere")
        clock.now += 29
        with pytest.raises(RunHeldError, match="elsewhere"), hold(folder, clock=clock):
            pass
        clock.now += 2
        with hold(folder, clock=clock) as taken:
            taken.fence.check()
            with pytest.raises(RunHeldError, match="has taken over"):
                lost.fence.check()
    with hold(folder, clock=clock) as after:
        assert after.fence.number == 3


def test_a_killed_owner_on_this_host_is_forgotten_at_once(tmp_path: Path) -> None:
    script = (
        "import sys,time\nfrom startup_ray.lease import hold\nfrom startup_ray.storage import Folder\n"
        "with hold(Folder(sys.argv[1])):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    folder = Folder(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(RunHeldError, match=f"process {owner.pid} "), hold(folder):
            pass
        fence = Fence(folder, 1, json.loads(folder.read("lease/1.json"))["nonce"])
        fence.check()
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
        with pytest.raises(RunHeldError, match=f"process {owner.pid} .* has ended"):
            fence.check()
        with hold(folder) as lease:
            assert lease.fence.number == 2


def test_a_later_process_with_the_same_pid_is_not_the_owner(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with hold(folder):
        _rewrite(folder, 1, started="1")
        with hold(folder) as lease:
            assert lease.fence.number == 2


def test_the_lease_is_renewed_while_it_is_held(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with hold(folder, ttl_s=0.3):
        first = json.loads(folder.read("lease/1.json"))["expires"]
        deadline = time.monotonic() + 5
        while json.loads(folder.read("lease/1.json"))["expires"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)
