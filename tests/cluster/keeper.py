"""A command of which nothing is left when it ends, or when the process that started it does, however that ends.

    process = start([sys.executable, "-m", "tests.cluster.growing"], env)
    process.terminate()

Ray's processes leave the group and the session that they were started in, and some of them outlive a head that is
killed. So the command runs below one of ours that adopts its orphans (prctl(2)), is told of the end of its parent, and
kills all that is below it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # linux/prctl.h


def start(words: Sequence[str], env: Mapping[str, str], **more: Any) -> subprocess.Popen[str]:
    """The command below a keeper; `terminate` of what is returned ends all of it."""
    keeper = [sys.executable, "-m", "tests.cluster.keeper", str(os.getpid()), *words]
    return subprocess.Popen(keeper, cwd=ROOT, env=dict(env), text=True, **more)


def main(parent: int, words: Sequence[str]) -> int:
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    try:
        return subprocess.call(words)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all_below()


def _end_all_below() -> None:
    """Until none is left: one that is about to be killed may start another."""
    while below := psutil.Process().children(recursive=True):
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
