"""Where the time of startup_ray goes: by process, and inside one fetch actor by py-spy.

py-spy (https://github.com/benfred/py-spy) is no dependency: `pip install py-spy==0.4.3`. Its stacks in the
collapsed form make a flame graph in any viewer of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from rig.meter import Usage

RATE_HERTZ = 200
ACTOR = "ray::MapWorker"
"""How the process of a fetch actor is called."""

WAITING = (
    "Condition.wait (",
    "Worker._fetch (",  # for the next body
    "Worker.main_loop (",
    "MainThread",
)
"""Ends of stacks that wait. On a busy machine py-spy takes some of them for running; they are left out."""
PARTS = {
    "decode": ("ingest/decode.py",),
    "encode": ("ingest/encode.py",),
    "redact": ("redact (",),
    "commit, rows to Arrow": ("from_pylist", "commit (", "asdict ("),
    "read the chunk": ("read_spool (",),
    "sha256, Outcome, split": ("Worker._finish (",),
    "hand back the room": ("Worker._release (",),
    "turns at hosts": ("ingest/hosts.py", "ingest/breaker.py"),
    "aiohttp: connections": ("aiohttp/connector.py", "aiohttp/client_proto.py", "aiohttp/base_protocol.py"),
    "aiohttp: requests and answers": ("site-packages/aiohttp/",),
    "exchange": ("ingest/exchange.py",),
    "fetcher": ("ingest/fetch.py", "fetch_one ("),
    "sockets and callbacks": ("fetch;",),
    "import and start": ("importlib._bootstrap",),
    "the rest of startup_ray": ("/startup_ray/",),
    "memory watch of Ray Data": ("poll_uss", "MemoryProfiler"),
    "Ray Data": ("ray/data/",),
    "Ray": ("site-packages/ray/",),
}
"""What gives a stack to a part: a word in one of its frames. The first part that fits has it."""


def watcher(out: Path) -> Callable[[Mapping[int, str]], None]:
    """For `meter.run`: records the first fetch actor that appears, until it ends, into `out`."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    program = shutil.which("py-spy", path=beside)
    if program is None:
        raise SystemExit("--profile needs py-spy: pip install py-spy==0.4.3")
    recorded: list[int] = []

    def watch(processes: Mapping[int, str]) -> None:
        for pid, name in processes.items():
            if name.startswith(ACTOR) and not recorded:
                recorded.append(pid)
                words = ["--pid", str(pid), "--output", str(out), "--rate", str(RATE_HERTZ), "--full-filenames"]
                command = [program, "record", "--format", "raw", "--threads", *words]
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return watch


def processes(usage: Usage, images: int) -> str:
    """CPU of each kind of process, Markdown."""
    rows = [f"| {name} | {cpu_s:.2f} | {cpu_s * 1e3 / images:.3f} |" for name, cpu_s in usage.cpu_s_by_name.items()]
    return "\n".join(["| process | CPU s | ms per image |", "|---|---|---|", *rows])


def parts(stacks: str) -> str:
    """Share of each part of the samples in which a thread of the actor was running, Markdown."""
    samples: Counter[tuple[str, str]] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        thread, *frames = stack.rpartition("): ")[2].split(";")
        if not (frames or [thread])[-1].startswith(WAITING):
            samples["loop" if thread == "fetch" else "others", _part(stack)] += int(number)
    total = sum(samples.values())
    rows = [f"| {thread} | {part} | {number / total:.1%} |" for (thread, part), number in samples.most_common()]
    return "\n".join([f"| thread | part of {total:,} samples | share |", "|---|---|---|", *rows])


def _part(stack: str) -> str:
    return next((part for part, words in PARTS.items() if any(word in stack for word in words)), "other")
