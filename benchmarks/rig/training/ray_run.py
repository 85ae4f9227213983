"""A contestant that Ray runs: one driver process, which tells through a FIFO where its window begins and ends.

    window = measure([python, "-m", "rig.training.on_dataset", ...], env=env, folder=folder)

CPU time is of the whole tree between the two words, Ray's daemons included. A driver is given the FIFO as its last
argument, and `words.tell` is how it, or a worker of it, writes there.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig.meter import die_with_parent
from rig.training.group import last_words
from rig.training.window import Window, descendants_cpu_s, end_descendants
from rig.training.words import BEGIN, END, SPEED

LIMIT_S = 300.0
FAREWELL_S = 30.0


def measure(command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> Window:
    """Run a driver to its end; its SPEED has `images` of the window, `images_per_s`, and maybe `whole_images_per_s`.

    Raises:
        RuntimeError: it failed, or took longer than LIMIT_S.
    """
    fifo, log = folder / "fifo", folder / "driver.log"
    os.mkfifo(fifo)
    cpu_s: dict[str, float] = {}
    window: Window | None = None
    try:
        with _started([*command, str(fifo)], env, log) as process:
            for event in _events(fifo, process, log):
                cpu_s[event["event"]] = descendants_cpu_s()
                if event["event"] == SPEED:
                    used_s = cpu_s[END] - cpu_s[BEGIN]
                    window = Window(
                        images_per_s=event["images_per_s"],
                        cpu_us=used_s * 1e6 / event["images"],
                        whole_images_per_s=event.get("whole_images_per_s"),
                    )
            if window is None:
                raise RuntimeError(f"it told no speed: {last_words(log)}")
            return window
    finally:
        end_descendants(FAREWELL_S)


@contextmanager
def _started(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, preexec_fn=die_with_parent
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(FAREWELL_S)


def _events(fifo: Path, process: subprocess.Popen[bytes], log: Path) -> Iterator[dict[str, Any]]:
    """What is told until the driver has ended well."""
    deadline = time.monotonic() + LIMIT_S
    with open(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) as pipe:  # O_RDWR: nobody need write yet
        text = b""
        while (code := process.poll()) is None or select.select([pipe], [], [], 0)[0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"still running after {LIMIT_S:.0f} s: {last_words(log)}")
            if select.select([pipe], [], [], 0.2)[0]:
                *lines, text = (text + (pipe.read(1 << 16) or b"")).split(b"\n")
                yield from map(json.loads, lines)
        if code:
            raise RuntimeError(last_words(log))
