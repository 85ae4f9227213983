"""From a manifest with boxes to images that are stored blurred, by a real worker, wherever their bodies come from."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from startup_ray.ingest.chunks import LEDGER, names_in, read_part, read_shard
from startup_ray.ingest.plan import plan_manifest
from startup_ray.ingest.seal import clear_spool, seal
from startup_ray.ingest.work import Task, Worker
from startup_ray.ingest_options import ColumnOptions, FetchOptions, ImageOptions, IngestOptions
from startup_ray.lease import hold
from startup_ray.ledger import NOTHING
from startup_ray.regions import BLURRED
from startup_ray.sources import sources_of
from startup_ray.storage import Folder
from tests.fakes import read_ledger
from tests.image_server import ImageServer
from tests.ingest.pictures import save
from tests.ingest.test_blur import squares

ALL, LEFT = [[0.0, 0.0, 1.0, 1.0]], [[0.0, 0.0, 0.25, 1.0]]


def ingest(manifest: Path, folder: Folder, store: str = "png") -> tuple[str, dict[str, str]]:
    """The dataset's digest, and the state and reason of each item."""
    options = IngestOptions(
        manifest=str(manifest),
        columns=ColumnOptions(blur="faces"),
        image=ImageOptions.model_validate({"size": (48, 64), "store": store}),
        fetch=FetchOptions(allow_private=(IPv4Network("127.0.0.1/32"),), allow_files=(str(manifest.parent),)),
    )
    sources = sources_of(options, str(manifest))
    with hold(folder) as lease:
        plan, _ = plan_manifest(str(manifest), options, sources, folder, folder, 4, NOTHING)
        worker = Worker(Task(options=options, folder=folder, fence=lease.fence, sources=sources))
        for name in plan.todo:
            list(worker.process(name))
        worker.close()
        digest = seal(folder, list(plan.chunks), lease.fence).digest
        clear_spool(folder)
    return digest, {row["id"]: f"{row['status']} {row['reason']}".strip() for row in read_ledger(folder)}


def stored(folder: Folder) -> dict[str, bytes]:
    shards = [read_part(folder, name).shard for name in names_in(folder, LEDGER)]
    rows = [row for shard in shards if shard for row in read_shard(folder, shard).to_pylist()]
    return {row["id"]: row["image"] for row in rows}


def raw(folder: Folder) -> dict[str, NDArray[np.int32]]:
    return {
        name: np.frombuffer(image, np.uint8).reshape(48, 64, 3).astype(int) for name, image in stored(folder).items()
    }


def body(number: int) -> bytes:
    """Black and white squares whose last pixel tells one from another."""
    image = squares(64, 48)
    image.putpixel((63, 47), (number, 0, 0))
    return save(image, "PNG")


def table(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("id,url,faces\n" + "".join(f'{row["id"]},{row["url"]},"{row["faces"] or ""}"\n' for row in rows))
    return path


def test_items_of_a_table_are_stored_blurred_and_bad_boxes_not_at_all(tmp_path: Path) -> None:
    """By http and from files; the body itself is nowhere in the folder."""
    (tmp_path / "b.png").write_bytes(body(2))
    folder = Folder(str(tmp_path / "dataset"))
    with ImageServer() as server:
        server.bodies = {"a.png": body(1), "c.png": body(3)}
        rows: list[dict[str, Any]] = [
            {"id": "a", "url": server.url("/body/a.png"), "faces": ALL},
            {"id": "b", "url": "b.png", "faces": LEFT},
            {"id": "c", "url": server.url("/body/c.png"), "faces": None},
            {"id": "d", "url": server.url("/body/a.png"), "faces": [[0, 0, 64, -1]]},
            {"id": "e", "url": server.url("/body/a.png"), "faces": "[[0, 0, 0.5"},
        ]
        _, ends = ingest(table(rows, tmp_path / "m.csv"), folder, "raw")
        assert server.hits["/body/a.png"] == 1
    assert ends["a"].startswith(f"ok {BLURRED}1 (")
    assert ends["b"].startswith(f"ok {BLURRED}1 (")
    assert (ends["c"], ends["d"].split()[0], ends["e"]) == ("ok", "bad_item", "bad_item faces is not JSON")
    images = raw(folder)
    assert sorted(images) == ["a", "b", "c"]
    assert images["a"].std() < 8
    assert images["b"][:, :16].std() < 8
    assert images["b"][:, 32:].std() > 120
    assert images["c"].std() > 120
    files = [path.read_bytes() for path in Path(tmp_path / "dataset").rglob("*") if path.is_file()]
    assert files
    assert not any(body(number) in data for data in files for number in (1, 2, 3))


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float64())),
        pa.large_list(pa.list_(pa.float32(), 4)),
        pa.list_(pa.large_list(pa.float32())),
        pa.string(),
    ],
)
def test_images_in_a_parquet_file_beside_their_boxes(tmp_path: Path, kind: pa.DataType) -> None:
    faces: list[Any] = [ALL, None, [], LEFT]
    if pa.types.is_string(kind):
        faces = [None if boxes is None else json.dumps(boxes) for boxes in faces]
    columns = {"id": list("abcd"), "image": [body(i) for i in range(4)], "faces": pa.array(faces, kind)}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet", row_group_size=2)
    folder = Folder(str(tmp_path / "dataset"))
    _, ends = ingest(tmp_path / "m.parquet", folder, "raw")
    assert [end.split(" (")[0] for end in ends.values()] == [f"ok {BLURRED}1", "ok", "ok", f"ok {BLURRED}1"]
    images = raw(folder)
    assert [images[name][:, :16].std() < 8 for name in "abcd"] == [True, False, False, True]
    assert [images[name][:, 32:].std() < 8 for name in "abcd"] == [True, False, False, False]


def test_a_manifest_that_gains_boxes_has_its_images_fetched_again(tmp_path: Path) -> None:
    """And is another dataset, whose digest names what was fetched alone; one without boxes has the digest it had."""
    folder, fresh = Folder(str(tmp_path / "dataset")), Folder(str(tmp_path / "fresh"))
    with ImageServer() as server:
        server.bodies = {"a.png": body(1), "c.png": body(3)}
        rows: list[dict[str, Any]] = [
            {"id": name, "url": server.url(f"/body/{name}.png"), "faces": None} for name in "ac"
        ]
        plain, _ = ingest(table(rows, tmp_path / "m.csv"), folder)
        before = stored(folder)
        rows[0]["faces"] = ALL
        blurred, _ = ingest(table(rows, tmp_path / "m.csv"), folder)
        assert (server.hits["/body/a.png"], server.hits["/body/c.png"]) == (2, 1)
        after = stored(folder)
        assert ingest(table(rows, tmp_path / "m.csv"), fresh)[0] == blurred != plain
    assert stored(fresh) == after
    assert after["a"] != before["a"]
    assert after["c"] == before["c"]
    assert len(list(Path(tmp_path / "dataset" / "images").iterdir())) == 1  # nothing is left of the former
