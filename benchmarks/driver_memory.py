"""Memory of the driver of an ingest, from 10,000 to 1,000,000 rows of a manifest.

    python benchmarks/driver_memory.py [--rows 10000 1000000]

The rows name a host that refuses, so that what is measured is the way of the rows and not that of bodies: planning,
spooling, fetching, committing, sealing. Each size runs in a process of its own with its own Ray. Peak resident set
sizes: of the driver, and of the largest process that Ray has started beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    print("| rows | driver, MB | largest other process, MB | files in ledger/ | seconds |\n|---|---|---|---|---|")
    for rows in args.rows:
        words = [sys.executable, __file__, "--one", str(rows)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {rows:,} | {found['driver']:.1f} | {found['other']:.0f} | {found['files']} | {found['seconds']:.0f} |"
        )


def measure(rows: int) -> dict[str, float]:
    """Ingest so many rows; peak memory in MB, files of the ledger, seconds."""
    import ray

    from startup_ray.ingest.pipeline import ingest
    from startup_ray.job import IngestOptions
    from startup_ray.lease import hold
    from startup_ray.storage import Folder

    root = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
    os.environ["HOME"] = str(root)
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(root / "ray"))
        folder = Folder(str(root / "data"))
        options = IngestOptions.model_validate(
            {
                "manifest": write_manifest(root / "manifest.jsonl", rows),
                "image": {"size": [8, 8]},
                "fetch": {"allow_private": ["127.0.0.1/32"], "retries": 0},
            }
        )
        with Watch() as watch, hold(folder) as lease:
            began = time.monotonic()
            dataset = ingest(options, folder, lease.fence)
            seconds = time.monotonic() - began
        assert dataset.counts == {"refused": rows}, dataset.counts
        files = len(folder.list("ledger"))
        driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        return {"driver": driver, "other": watch.peak / 1e6, "files": files, "seconds": seconds}
    finally:
        ray.shutdown()
        shutil.rmtree(root, ignore_errors=True)


def write_manifest(path: Path, rows: int) -> str:
    """Rows whose host refuses: a port of the loopback that nobody listens at."""
    with socket.socket() as lent:
        lent.bind(("127.0.0.1", 0))
        port = lent.getsockname()[1]
    with path.open("w") as stream:
        for i in range(rows):
            stream.write(f'{{"id": "item-{i:09d}", "url": "http://127.0.0.1:{port}/{i}.jpg", "label": "{i % 10}"}}\n')
    return str(path)


class Watch:
    """The largest resident set of any descendant while the block runs, in bytes."""

    peak = 0

    def __enter__(self) -> Watch:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    self.peak = max(self.peak, process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


if __name__ == "__main__":
    main()
