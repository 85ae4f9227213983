"""A call in a process of its own: its answer, its errors, and its end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from startup_ray.errors import ClusterError, DataError
from startup_ray.remote import run_task

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_process_is_gone_with_its_answer() -> None:
    process = run_task(os.getpid, stage="test", here=True)
    assert process != os.getpid()
    _see_it_end(process)


def test_an_error_of_ours_comes_as_it_was_raised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the reason"):
        run_task(_fail, tmp_path / "pid", stage="test", here=True)
    _see_it_end(int((tmp_path / "pid").read_text()))


def test_a_killed_process_is_told() -> None:
    with pytest.raises(ClusterError, match="the test stopped"):
        run_task(_kill_itself, stage="test")


def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_task(_interrupt, tmp_path / "pid", os.getpid(), stage="test", here=True)
    _see_it_end(int((tmp_path / "pid").read_text()))


def _see_it_end(process: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the process lives on"
        time.sleep(0.05)


def _fail(note: Path) -> None:
    note.write_text(str(os.getpid()))
    raise DataError("the reason")


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupt(note: Path, driver: int) -> None:
    note.write_text(str(os.getpid()))
    os.kill(driver, signal.SIGINT)
    time.sleep(300)
