"""Manifests and folders to commits: the worker of an ingest in this process, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import RunHeldError, UsageError
from startup_ray.ingest.chunks import IMAGES, names_in, read_shard
from startup_ray.ingest_options import ColumnOptions
from startup_ray.job import FetchOptions, ImageOptions, IngestOptions, SplitOptions
from startup_ray.predict.gather import gather, open_targets
from startup_ray.progress import Progress, ignore
from startup_ray.storage import Folder
from tests.fakes import read_ledger
from tests.image_server import ImageServer, image

FETCH = FetchOptions.model_validate({"allow_private": ["127.0.0.1/32"], "retries": 0, "max_bytes": 50_000})
OPTIONS = IngestOptions(
    manifest="of the run", image=ImageOptions(size=(8, 8), channels=1), split=SplitOptions(by="manifest"), fetch=FETCH
)


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with ImageServer() as server:
        yield server


def manifest_of(tmp_path: Path, rows: list[Any]) -> str:
    path = tmp_path / "new.json"
    path.write_text(json.dumps(rows))
    return str(path)


def gathered(folder: Folder, targets: list[str], options: IngestOptions = OPTIONS) -> list[tuple[str, str]]:
    gather(open_targets(targets), options, folder, ignore)
    return [(row["id"], row["status"]) for row in read_ledger(folder)]


def test_new_images_are_labelled_as_they_are(tmp_path: Path, server: ImageServer) -> None:
    """A run whose dataset was blurred asks for no boxes, and heeds none."""
    blurred = OPTIONS.model_copy(update={"columns": ColumnOptions(blur="faces")})
    rows: list[dict[str, Any]] = [{"id": name, "url": server.url("/image/1.png")} for name in "ab"]
    folder = Folder(str(tmp_path / "folder"))
    targets = [manifest_of(tmp_path, [rows[0], rows[1] | {"faces": [[0, 0, 1, 1]]}])]
    assert gathered(folder, targets, blurred) == [("a", "ok"), ("b", "ok")]
    (shard,) = names_in(folder, IMAGES)
    first, second = read_shard(folder, shard)["image"].to_pylist()
    assert first == second


def test_every_row_of_a_manifest_ends_in_a_state_of_the_ledger(tmp_path: Path, server: ImageServer) -> None:
    paths = {
        "ok": "/image/1.png", "http_404": "/status?code=404", "not_image": "/page", "too_large": "/announced",
        "truncated": "/truncated", "again": "/image/1.png",
    }  # fmt: skip
    rows = [
        {"id": name, "url": server.url(path), "label": "kept out", "split": "train"} for name, path in paths.items()
    ]
    rows += [{"id": "ok", "url": server.url("/image/2.png")}, {"id": "x"}, {"id": "f", "url": "file:///etc/passwd"}]
    rows += [{"id": "private", "url": "http://10.0.0.1/x.png"}]
    seen: list[Progress] = []
    folder = Folder(str(tmp_path / "folder"))
    gather(manifest_of(tmp_path, rows), OPTIONS, folder, seen.append)
    ledger = read_ledger(folder)
    states = [*[*paths][:-1], "ok", "bad_item", "bad_url", "blocked_scheme", "blocked_address"]
    assert [row["status"] for row in ledger] == states
    assert [row["id"] for row in ledger] == [row["id"] for row in rows]
    assert ledger[6]["reason"] == "repeats the id of row 0"
    assert (seen[-1].done, seen[-1].total) == (10, 10)
    kept = [row for name in names_in(folder, IMAGES) for row in read_shard(folder, name).to_pylist()]
    assert [(row["id"], row["split"], row["label"]) for row in kept] == [("ok", "test", None), ("again", "test", None)]


def test_several_chunks_keep_the_order_and_one_bound_per_host(tmp_path: Path, server: ImageServer) -> None:
    wide = OPTIONS.model_copy(update={"image": ImageOptions(size=(2_000, 2_000), channels=1)})  # 16 rows a chunk
    options = wide.model_copy(update={"fetch": FETCH.model_copy(update={"per_host": 2, "max_pixels": 1})})
    server.delay_s, server.most_open = 0.005, 0
    rows = [{"id": f"{i}", "url": server.url(f"/image/{i}.png")} for i in range(40)]
    found = gathered(Folder(str(tmp_path / "folder")), [manifest_of(tmp_path, rows)], options)
    assert found == [(f"{i}", "too_many_pixels") for i in range(40)]
    assert 1 <= server.most_open <= 2


def test_files_take_the_same_way(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(image(1))
    (photos / "b.txt").write_text("no image")
    (photos / "c.png").write_bytes(image(1)[:100])
    (photos / "d.png").write_bytes(bytes(50_001))
    (photos / "e").symlink_to(tmp_path)
    folder = Folder(str(tmp_path / "folder"))
    found = gathered(folder, [str(photos)])
    states = ["ok", "not_image", "corrupt", "too_large", "bad_item"]
    assert found == list(zip(["a.png", "b.txt", "c.png", "d.png", "e"], states, strict=True))


@pytest.mark.ray  # seconds
def test_an_error_of_a_worker_is_raised(tmp_path: Path, server: ImageServer) -> None:
    """Here somebody takes the folder over while chunks are in work."""
    server.delay_s = 0.005
    options = OPTIONS.model_copy(update={"image": ImageOptions(size=(2_000, 2_000), channels=1)})  # 16 rows a chunk
    rows = [{"id": f"{i}", "url": server.url(f"/image/{i}.png")} for i in range(320)]
    folder = Folder(str(tmp_path / "folder"))

    def usurp(_: Progress) -> None:
        folder.put_whole("lease/9.json", b'{"nonce": "other"}')

    with pytest.raises(RunHeldError):
        gather(manifest_of(tmp_path, rows), options, folder, usurp)


def test_a_manifest_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stands alone"):
        open_targets([str(tmp_path), "https://example.com/list.json"])


def test_a_folder_may_be_called_like_a_manifest(tmp_path: Path) -> None:
    photos = tmp_path / "photos.json"
    photos.mkdir()
    (photos / "1").write_bytes(image(1))
    assert gathered(Folder(str(tmp_path / "folder")), [str(photos)]) == [("1", "ok")]


def test_a_table_of_new_images_needs_no_column_of_labels(tmp_path: Path, server: ImageServer) -> None:
    """Its other columns are called as those of the manifest that the run was trained with."""
    path = tmp_path / "new.csv"
    path.write_text(f"key,link\na,{server.url('/image/1.png')}\nb,1.png\n")
    columns = {"id": "key", "url": "link", "label": "class", "split": "part"}
    options = IngestOptions.model_validate(OPTIONS.model_dump() | {"columns": columns})
    found = gathered(Folder(str(tmp_path / "folder")), [str(path)], options)
    assert found == [("a", "ok"), ("b", "blocked_scheme")]
