"""Exports read back by those they are made for: rows as `made.content` gives them, and `index`."""

from __future__ import annotations

import csv
import gc
import io
import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import webdataset
from PIL import Image

from startup_ray.dataset import SPLITS
from tests.outlet.made import files_in


def pixels(image: bytes) -> Any:
    """Nested lists [height, width, channels]."""
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened, np.uint8).reshape(opened.height, opened.width, -1).tolist()


def of_webdataset(out: Path) -> list[dict[str, Any]]:
    """Read by the package, in the order of its shards."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset 1.0 leaves the closing of files to Python
        for split in SPLITS:
            paths = [str(path) for path in sorted(out.glob(f"{split}-*.tar"))]
            for sample in webdataset.WebDataset(paths, shardshuffle=False).decode("pil"):
                about = sample["json"] | {"image": np.asarray(sample["png"]).tolist()}
                rows.append(about | {"index": sample.get("cls", -1)})
        gc.collect()
    return rows


def of_parquet(out: Path) -> list[dict[str, Any]]:
    """Read by the schema that stands in the files."""
    rows = []
    for split in SPLITS:
        for path in sorted((out / "data").glob(f"{split}-*.parquet")):
            table = pq.read_table(path)
            names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
            for row in table.to_pylist():
                index = row["label"]
                assert row["split"] == split
                row |= {"index": index, "label": names[index] if index >= 0 else None}
                own = json.loads(row["own"]) if row["own"] else {}
                rows.append(row | {"own": own, "image": pixels(row["image"]["bytes"])})
    return rows


def of_folder(out: Path) -> list[dict[str, Any]]:
    """Read by its list; the folders must agree with it."""
    folders, rows = json.loads((out / "export.json").read_text()), []
    with (out / "labels.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            label = row["label"] or None
            folder = folders["class_folders"][folders["classes"].index(label)] if label else None
            assert Path(row["file"]).parts[:-1] == ("images", row["split"], *([folder] if folder else []))
            index = folders["classes"].index(label) if label else -1
            image = {"image": pixels((out / row["file"]).read_bytes()), "label": label, "index": index}
            size = {name: int(row[name]) for name in ("width", "height")}
            rows.append(row | image | size | {"own": json.loads(row["own"]) if row["own"] else {}})
    return sorted(rows, key=lambda row: SPLITS.index(row["split"]))


def images_in(out: Path, form: str) -> list[bytes]:
    """Encoded images, in any order."""
    if form == "folder":
        return list(files_in(out / "images").values())
    if form == "parquet":
        return [row["bytes"] for path in (out / "data").iterdir() for row in pq.read_table(path)["image"].to_pylist()]
    found = []
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            found += [
                tar.extractfile(member).read()  # type: ignore[union-attr]
                for member in tar
                if member.name.endswith((".png", ".jpg"))
            ]
    return found


READ = {"webdataset": of_webdataset, "parquet": of_parquet, "folder": of_folder}
