"""A tree of processes that knows what it burns, to check the meter against.

burned_s, seen_s = check()
"""

from __future__ import annotations

import sys

from rig import meter

PROCESSES = 5
SECONDS = 0.6
"""CPU time of each."""

_TREE = """
import os, signal, sys, time

def burn():
    while time.process_time() < float(sys.argv[1]):
        pass

def spawn(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid

def as_daemon():
    os.setsid()
    spawn(burn)  # an orphan at once

def with_forgotten_child():  # whose time the kernel adds to nobody, as with the workers of Ray's raylet
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    spawn(burn)
    burn()
    time.sleep(1)

os.waitpid(spawn(burn), 0)
os.waitpid(spawn(as_daemon), 0)
os.waitpid(spawn(with_forgotten_child), 0)
burn()
"""


def check() -> tuple[float, float]:
    """CPU seconds that a tree has burned, and what the meter saw of them."""
    usage = meter.run([sys.executable, "-S", "-c", _TREE, str(SECONDS)], limit_s=120)
    return PROCESSES * SECONDS, usage.cpu_s
