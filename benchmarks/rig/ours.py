"""startup_ray: the command `startup-ray ingest` with a Ray of its own, start, seal and stop included."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rig import meter
from rig.case import QUALITY, Work
from startup_ray.job import FetchOptions, ImageOptions

LIMIT_S = 1_200.0
PER_HOST = 32


def run(work: Work, watch: Callable[[Mapping[int, str]], None] = lambda _: None) -> meter.Usage:
    """Ingest, with all guards on, and see that every image has arrived."""
    manifest, job = work.folder / "manifest.jsonl", work.folder / "job.yaml"
    rows = ({"id": f"{number:06d}", "url": url} for number, url in enumerate(work.urls))
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job.write_text(json.dumps(_job(work, manifest)))  # JSON is YAML
    command = [sys.executable, "-m", "startup_ray", "ingest", str(job), "--quiet", "--json"]
    usage = meter.run(command, limit_s=LIMIT_S, env=work.env, watch=watch)
    hashes = {row for path in _shards(work) for row in pq.read_table(path, columns=["sha256"])["sha256"].to_pylist()}
    if len(hashes) != len(work.urls):
        raise RuntimeError(f"startup_ray: {len(hashes)} images for {len(work.urls)} URLs")
    return usage


def images(work: Work, count: int) -> list[bytes]:
    """The stored images of the first URLs."""
    found: dict[str, bytes] = {}
    for path in _shards(work):
        table = pq.read_table(path, columns=["id", "image"])
        found |= zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True)
    return [found[f"{number:06d}"] for number in range(count)]


def image_options(target: int) -> ImageOptions:
    return ImageOptions(size=(target, target), channels=3, resize="center_crop", store="jpeg", quality=QUALITY)


def fetch_options() -> FetchOptions:
    return FetchOptions.model_validate({"allow_private": ["127.0.0.1/32"], "per_host": PER_HOST})


def _job(work: Work, manifest: Path) -> dict[str, Any]:
    fetch = fetch_options().model_dump(mode="json", exclude_unset=True)
    image = image_options(work.case.target).model_dump(mode="json")
    ingest = {"manifest": str(manifest), "image": image, "fetch": fetch, "min_success": 1.0}
    return {"name": "bench", "storage": str(work.folder / "storage"), "ingest": ingest}


def _shards(work: Work) -> list[Path]:
    """As `dataset.json` names them, so that an unsealed dataset has none."""
    (dataset,) = (work.folder / "storage").glob("datasets/*/dataset.json")
    return [dataset.parent / "images" / name for name in json.loads(dataset.read_text())["shards"]]
