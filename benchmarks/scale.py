"""An ingest of a million items, end to end: throughput, memory over time, files, and the time of each step.

    python benchmarks/scale.py [--rows 1000000] [--audit]

`startup-ray ingest` fetches tiny images, each another one, from a server of the loopback, which has a core of the
machine's for itself about half of the time. Every two seconds it is asked how much memory the processes hold (PSS, so
that shared pages count once), and what lies in the dataset's folder, which tells the step: chunks appear while the
manifest is planned, parts of the ledger while items are fetched, `dataset.json` when the seal is done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from rig.environment import machine, private
from rig.tiny import SIDE, serve

EVERY_S = 2.0
SHOWN = 16
"""Moments in the table of memory over time."""
ROLES = ("driver", "fetch actors", "plan and seal", "Ray")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What was seen at one time."""

    at_s: float
    chunks: int
    parts: int
    sealed: bool
    memory: dict[str, int]
    """Bytes by role."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--audit", action="store_true", help="and the data card of it")
    args = parser.parse_args()
    rows = args.rows
    root = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
    try:
        print(machine(["ray", "aiohttp", "pyarrow", "duckdb"]), flush=True)
        with serve() as url:
            write_manifest(root / "manifest.csv", url, rows)
            document, moments = ingest(root, root / "manifest.csv")
        assert document["counts"] == {"ok": rows}, document["counts"]
        dataset = Path(document["dataset"])
        report(dataset, rows, moments)
        if args.audit:
            print(f"\naudit: {audit(root, dataset)}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_manifest(path: Path, url: str, rows: int) -> None:
    with path.open("w") as stream:
        stream.write("id,url,label\n")
        for number in range(rows):
            stream.write(f"item-{number:09d},{url}/{number}.bmp,{number % 10}\n")


def ingest(root: Path, manifest: Path) -> tuple[dict[str, object], list[Moment]]:
    """Run the command; its document, and what was seen meanwhile."""
    job = root / "job.yaml"
    section = {
        "manifest": str(manifest),
        "image": {"size": [SIDE, SIDE], "channels": 1},
        "fetch": {"allow_private": ["127.0.0.1/32"], "per_host": 64},
    }
    job.write_text(json.dumps({"name": "scale", "storage": str(root / "storage"), "ingest": section}))
    with started(root, "ingest", str(job)) as process:
        moments = list(watch(process, root / "storage" / "datasets"))
    return json.loads((root / "out").read_text()), moments


def audit(root: Path, dataset: Path) -> str:
    """Seconds and memory of the data card, and its size."""
    began, peak = time.monotonic(), 0
    with started(root, "audit", str(dataset)) as process:
        while process.poll() is None:
            peak = max(peak, memory(process.pid).get("driver", 0))
            time.sleep(EVERY_S)
    seconds, page = time.monotonic() - began, (dataset / "audit.html").stat().st_size
    return f"{seconds:.0f} s, at most {peak / 1e6:,.0f} MB, a page of {page / 1e6:.1f} MB"


@contextmanager
def started(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command at work, its document in the file `out` afterwards."""
    command = [sys.executable, "-m", "startup_ray", *words, "--quiet", "--json"]
    with (root / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, env=private(root / "private"))
        try:
            yield process
        finally:
            process.terminate()
            code = process.wait()
    if code:
        raise RuntimeError(f"{words[0]} ended with exit code {code}")


def watch(process: subprocess.Popen[bytes], datasets: Path) -> Iterator[Moment]:
    """A moment every two seconds, until the process has ended."""
    began = time.monotonic()
    while process.poll() is None:
        folder = next(iter(datasets.glob("*")), datasets)
        yield Moment(
            at_s=time.monotonic() - began,
            chunks=count(folder / "chunks", ".parquet"),
            parts=count(folder / "ledger", ".parquet"),
            sealed=(folder / "dataset.json").exists(),
            memory=memory(process.pid),
        )
        time.sleep(EVERY_S)


def count(folder: Path, ending: str) -> int:
    with suppress(FileNotFoundError):
        return sum(name.endswith(ending) and not name.startswith(".") for name in os.listdir(folder))
    return 0


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process and its descendants, by role."""
    found = Counter[str]()
    with suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                name = " ".join(process.cmdline()[:1])
                found[role(name, is_driver=process.pid == pid)] += process.memory_full_info().pss
    return dict(found)


def role(name: str, *, is_driver: bool) -> str:
    if is_driver:
        return "driver"
    if "MapWorker" in name:
        return "fetch actors"
    return "plan and seal" if "_Caller" in name else "Ray"


def report(dataset: Path, rows: int, moments: Sequence[Moment]) -> None:
    """Three tables: steps, memory over time, files."""
    planned = next(m.at_s for m in moments if m.parts)
    chunks = max(m.chunks for m in moments)
    fetched = next(m.at_s for m in moments if m.parts >= chunks)
    sealed = next((m.at_s for m in moments if m.sealed), moments[-1].at_s)
    first = next(m.at_s for m in moments if m.chunks)
    ended = moments[-1].at_s
    print("\n| step | seconds | items/s |\n|---|---|---|")
    for name, begin, end in (
        ("start of Python and Ray", 0.0, first),
        ("plan: the manifest into chunks, and the first of them fetched", first, planned),
        ("fetch, decode, commit", planned, fetched),
        ("seal", fetched, sealed),
        ("stop of Ray", sealed, ended),
        ("all", 0.0, ended),
    ):
        print(f"| {name} | {end - begin:.0f} | {rows / max(end - begin, EVERY_S):,.0f} |")
    print(f"\n| seconds | {' | '.join(f'{name}, MB' for name in ROLES)} | parts of the ledger |")
    print(f"|{'---|' * (len(ROLES) + 2)}")
    for moment in moments[:: max(len(moments) // SHOWN, 1)]:
        held = " | ".join(f"{moment.memory.get(name, 0) / 1e6:,.0f}" for name in ROLES)
        print(f"| {moment.at_s:.0f} | {held} | {moment.parts} |")
    peaks = " | ".join(f"{max(m.memory.get(name, 0) for m in moments) / 1e6:,.0f}" for name in ROLES)
    print(f"| at most | {peaks} | {chunks} |")
    print("\n| folder | files | MB | largest, MB | rows of a file |\n|---|---|---|---|---|")
    for kind in ("ledger", "images"):
        files = sorted((dataset / kind).glob("*.parquet"))
        sizes = [file.stat().st_size for file in files]
        lengths = sorted(pq.read_metadata(file).num_rows for file in files)
        between = f"{lengths[0]:,} to {lengths[-1]:,}"
        print(f"| {kind} | {len(files)} | {sum(sizes) / 1e6:,.0f} | {max(sizes) / 1e6:.1f} | {between} |")


if __name__ == "__main__":
    main()
