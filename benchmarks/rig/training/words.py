"""The words of a contestant that Ray runs, and its cores. Without startup_ray: a peer's environment imports it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

BEGIN, END, SPEED = "begin", "end", "speed"


def tell(fifo: str, event: str, **fields: Any) -> None:
    """One line, shorter than what a pipe takes whole (pipe(7), PIPE_BUF)."""
    with open(fifo, "a") as stream:
        stream.write(json.dumps({"event": event, **fields}) + "\n")


def pin(pid: int, rank: int) -> None:
    """All threads of a process, and those that they will start, to the core of its rank."""
    cores = sorted(os.sched_getaffinity(os.getpid()))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {cores[rank % len(cores)]})
