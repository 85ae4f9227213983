from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from startup_ray.ingest.chunks import Spooled, write_spool
from startup_ray.ingest.fetch import Fetched
from startup_ray.ingest.work import Task, Worker
from startup_ray.items import Item
from startup_ray.job import FetchOptions, ImageOptions, IngestOptions
from startup_ray.lease import hold
from startup_ray.storage import Folder
from tests.chaos_faults import SLOW
from tests.chaos_server import ChaosServer

SLOW_ITEMS, QUICK_ITEMS = 40, 600


class Stop(Exception):  # noqa: N818 - no error
    """Enough has been seen."""


class Watched(Worker):
    """A worker that notes the order in which items arrive, up to the first of the slow host."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.arrived: list[str] = []

    def _finish(self, row: Any, fetched: Fetched, *rest: Any) -> Any:
        self.arrived.append(row.id)
        assert fetched.status == "ok"
        if row.id.startswith("slow"):
            raise Stop
        return super()._finish(row, fetched, *rest)


@pytest.mark.ray
def test_one_slow_host_does_not_hold_back_the_others(tmp_path: Path) -> None:
    """Its items come first in the manifest, and could take all the room if they did not wait in line for it."""
    folder = Folder(str(tmp_path))
    with ChaosServer() as server, hold(folder) as lease:
        urls = [("slow", server.url("slow", i, host=SLOW)) for i in range(SLOW_ITEMS)]
        urls += [("quick", server.url("ok", i)) for i in range(QUICK_ITEMS)]
        rows = [Spooled(row=Item(position=i, id=f"{kind} {i}", url=url)) for i, (kind, url) in enumerate(urls)]
        write_spool(folder, "chunk", rows)
        bounds = {"concurrency": 12, "per_host": 8, "timeout_s": 20, "read_timeout_s": 20}
        fetch = FetchOptions.model_validate({"allow_private": ["127.0.0.0/8"]} | bounds)
        options = IngestOptions(manifest="m.json", image=ImageOptions(size=(8, 8)), fetch=fetch)
        with closing(Watched(Task(options=options, folder=folder, fence=lease.fence))) as worker, pytest.raises(Stop):
            list(worker.process("chunk"))
    *before, first_slow = worker.arrived
    assert first_slow.startswith("slow")
    assert sorted(before) == sorted(f"quick {i}" for i in range(SLOW_ITEMS, SLOW_ITEMS + QUICK_ITEMS))
    assert sum(server.hits[f"/slow/{i}"] for i in range(SLOW_ITEMS)) <= 16  # per_host, and who took their turns
