from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import ClusterError, RunHeldError
from startup_ray.ingest.chunks import LEDGER, count_try, names_in, read_part, read_shard, read_spool, spool
from startup_ray.ingest.fetch import Fetched
from startup_ray.ingest.finish import MAX_REASON, one_line
from startup_ray.ingest.work import MAX_TRIES, Task, Worker
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


def test_reasons_are_one_line_that_any_file_can_take(task: Task, server: ImageServer) -> None:
    """A server's words need not be text: bytes that are no UTF-8 once broke the commit, each time anew."""
    server.bodies["reason"] = b"HTTP/1.1 404 N\xff\xfe \x1b[31m gone\r\nContent-Length: 0\r\n\r\n"
    rows = items(server, "/raw/reason")
    rows.append(BadRow(position=1, id="1", url="", status="bad_item", reason="a\nb\ud800" + "c" * 999))
    (name,) = spool([rows[0]], task.folder, 10, ())
    worker = Worker(task)
    list(worker.process(name))
    worker.close()
    (reason,) = read_part(task.folder, name).table["reason"].to_pylist()
    assert reason == "N [31m gone"
    assert one_line(rows[1].reason) == "a b " + "c" * (MAX_REASON - 4)  # type: ignore[union-attr]


class Stumbling(Worker):
    """A worker that fails in the middle of its first chunk."""

    stumbles = True

    def _finish(self, row: Item | BadRow, fetched: Fetched, attempts: int) -> Any:
        if self.stumbles and row.id == "4":
            raise LookupError("in mid-chunk")
        return super()._finish(row, fetched, attempts)


@pytest.mark.parametrize("early", [False, True])
def test_a_chunk_that_fails_gives_back_its_room(task: Task, server: ImageServer, early: bool) -> None:
    """Bodies in hand, on their way and still to come; else the next chunk on this worker would wait for ever."""
    names = list(spool(items(server, *(f"/slow/{i}?s=0.01" for i in range(24))), task.folder, 12, ()))
    worker = Stumbling(task)
    if early:  # closed from outside, as when Ray ends a call
        rows = read_spool(task.folder, names[0])
        arrivals = worker._fetch({i: spooled.row.url for i, spooled in enumerate(rows)})
        next(arrivals)
        arrivals.close()
    else:
        with pytest.raises(LookupError):
            list(worker.process(names[0]))
    worker.stumbles = False
    with ThreadPoolExecutor(1) as threads:
        last = threads.submit(lambda: list(worker.process(names[1]))[-1]).result(30)
    assert (last.done, last.ok) == (12, 12)
    worker.close()
    assert worker._fetcher._room._value == 3


def test_a_chunk_is_not_tried_for_ever(task: Task, server: ImageServer) -> None:
    """Ray hands a chunk to another process when one dies, and so an image that kills it to one after another."""
    deadly, good = spool(items(server, "/image/1.png", "/image/2.png"), task.folder, 1, ())
    worker = Worker(task)
    for _ in range(MAX_TRIES):
        assert names_in(task.folder, LEDGER) == []
        count_try(task.folder, deadly)  # and then the process dies
    with pytest.raises(ClusterError, match="died 4 times at rows 0 to 0"):
        list(worker.process(deadly))
    for _ in range(MAX_TRIES + 1):  # no death, but needed again
        list(worker.process(good))
    worker.close()
    assert names_in(task.folder, LEDGER) == [good]
