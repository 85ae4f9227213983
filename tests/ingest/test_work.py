from __future__ import annotations

import threading
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from startup_ray.errors import RunHeldError
from startup_ray.ingest.chunks import LEDGER, names_in, read_part, read_shard, spool
from startup_ray.ingest.work import Task, Worker
from startup_ray.items import BadRow, Item
from startup_ray.job import FetchOptions, ImageOptions, IngestOptions
from startup_ray.lease import hold
from startup_ray.storage import Folder
from tests.image_server import ImageServer


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    folder = Folder(str(tmp_path))
    fetch = FetchOptions(allow_private=(IPv4Network("127.0.0.1/32"),), retries=0, concurrency=3)
    options = IngestOptions(manifest="m.json", image=ImageOptions(size=(4, 5), channels=1), fetch=fetch)
    with hold(folder) as lease:
        yield Task(options=options, folder=folder, fence=lease.fence)


def items(server: ImageServer, *paths: str) -> list[Item | BadRow]:
    return [Item(position=i, id=f"{i}", url=server.url(path), label="l") for i, path in enumerate(paths)]


def test_a_chunk_becomes_a_commit_in_manifest_order(task: Task, server: ImageServer) -> None:
    rows = items(server, "/slow/a?s=0.1", "/page", "/image/1.png", "/status?code=404", "/image/2.png")
    rows.append(BadRow(position=5, id="5", url="", status="bad_url", reason="url is missing"))
    (name,) = spool(rows, task.folder, 10, ())
    worker = Worker(task)
    last = list(worker.process(name))[-1]
    worker.close()
    assert (last.done, last.ok) == (6, 3)
    part = read_part(task.folder, name)
    assert part.table["status"].to_pylist() == ["ok", "not_image", "ok", "http_404", "ok", "bad_url"]
    images = read_shard(task.folder, part.shard)
    assert images["id"].to_pylist() == ["0", "2", "4"]
    assert images["width"].to_pylist() == [12, 12, 12]
    assert set(images["split"].to_pylist()) <= {"train", "val", "test"}
    hashes = [row["sha256"] for row in part.table.to_pylist() if row["status"] == "ok"]
    assert images["sha256"].to_pylist() == hashes


def test_an_own_split_wins(task: Task, server: ImageServer) -> None:
    rows: list[Item | BadRow] = [
        Item(position=i, id=f"{i}", url=server.url(f"/image/{i}.png"), split="val") for i in range(12)
    ]
    (name,) = spool(rows, task.folder, 20, ())
    worker = Worker(task)
    list(worker.process(name))
    worker.close()
    assert set(read_shard(task.folder, read_part(task.folder, name).shard)["split"].to_pylist()) == {"val"}


def test_several_chunks_at_once_share_the_bounds(task: Task, server: ImageServer) -> None:
    names = list(spool(items(server, *(f"/slow/{i}?s=0.02" for i in range(24))), task.folder, 6, ()))
    worker = Worker(task)
    threads = [threading.Thread(target=lambda name=name: list(worker.process(name))) for name in names]
    server.most_open = 0
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.close()
    assert names_in(task.folder, LEDGER) == names
    assert server.most_open <= 3


def test_only_the_named_endpoint_is_open(task: Task, server: ImageServer) -> None:
    closed = IngestOptions(manifest="sample:digits", fetch=FetchOptions(retries=0))
    with ImageServer() as other:
        rows = items(server, "/image/1.png") + items(other, "/image/2.png")
        (name,) = spool(rows, task.folder, 5, ())
        endpoint = ("127.0.0.1", server.port)
        worker = Worker(Task(options=closed, folder=task.folder, fence=task.fence, endpoints=(endpoint,)))
        list(worker.process(name))
        worker.close()
        assert read_part(task.folder, name).table["status"].to_pylist() == ["ok", "blocked_address"]
        assert not other.hits


def test_no_commit_after_a_lost_lease(task: Task, server: ImageServer) -> None:
    (name,) = spool(items(server, "/image/1.png"), task.folder, 5, ())
    task.folder.put_whole("lease/9.json", b'{"nonce": "other"}')
    worker = Worker(task)
    with pytest.raises(RunHeldError):
        list(worker.process(name))
    worker.close()
    assert names_in(task.folder, LEDGER) == []
