"""img2dataset 1.47.0, the reference for such downloads, in a virtual environment of its own.

It does the same work: centre crop, sha256, JPEG, Parquet, `X-Robots-Tag`. Reading Exif fields, which it does by
default and startup_ray does not, is switched off; so are retries, which nobody needs here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rig import environment, meter
from rig.case import QUALITY, Work

LIMIT_S = 1_200.0
SHARDS = 8
"""Of each run: four for each of two processes, so that none waits long for the other at the end."""
REQUIREMENTS = Path(__file__).parents[1] / "img2dataset.txt"


@dataclass(frozen=True)
class Setting:
    """What a user would tune."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} processes of {self.threads} threads"


def install(requirements: Path) -> Path:
    """The interpreter of its environment."""
    return environment.install("img2dataset", requirements)


def run(work: Work, python: Path, setting: Setting) -> meter.Usage:
    """Download, and see that every image has arrived."""
    urls = work.folder / "urls.txt"
    urls.write_text("".join(url + "\n" for url in work.urls))
    options = {
        "url_list": urls,
        "output_folder": work.folder / "out",
        "output_format": "parquet",
        "image_size": work.case.target,
        "resize_mode": "center_crop",
        "resize_only_if_bigger": False,
        "encode_format": "jpg",
        "encode_quality": QUALITY,
        "compute_hash": "sha256",
        "extract_exif": False,
        "retries": 0,
        "processes_count": setting.processes,
        "thread_count": setting.threads,
        "number_sample_per_shard": -(-len(work.urls) // SHARDS),
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    # albumentations would ask the network for a newer version of itself.
    env = dict(work.env) | {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    usage = meter.run([str(python), "-m", "img2dataset.main", *words], limit_s=LIMIT_S, env=env)
    hashes = {row["sha256"] for row in _rows(work, ["sha256", "status"]) if row["status"] == "success"}
    if len(hashes) != len(work.urls):
        raise RuntimeError(f"img2dataset: {len(hashes)} images for {len(work.urls)} URLs")
    return usage


def images(work: Work, count: int) -> list[bytes]:
    """The stored images of the first URLs."""
    wanted = set(work.urls[:count])
    found = {row["url"]: row["jpg"] for row in _rows(work, ["url", "jpg"]) if row["url"] in wanted}
    return [found[url] for url in work.urls[:count]]


def _rows(work: Work, columns: list[str]) -> Iterator[dict[str, Any]]:
    for path in (work.folder / "out").glob("*.parquet"):
        yield from pq.read_table(path, columns=columns).to_pylist()
