"""Forgetting and the ingest on Ray that comes after it, or is at work meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startup_ray.data_api import forget_items
from startup_ray.forgotten import add_request, home_of, marks_of
from startup_ray.ingest.pipeline import Progress, ingest
from startup_ray.lease import hold
from startup_ray.ledger import failures
from startup_ray.storage import Folder
from tests.fakes import read_ledger
from tests.image_server import ImageServer
from tests.ray.test_ingest import options_for, run

pytestmark = pytest.mark.usefixtures("ray_session")

NAME = "pets-0123abcd"


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


def items(server: ImageServer, number: int) -> list[dict[str, Any]]:
    return [{"id": f"{i}", "url": server.url(f"/image/{i % 10}.png"), "label": "l"} for i in range(number)]


def gone(folder: Folder) -> set[str]:
    return {row["id"] for row in read_ledger(folder) if row["status"] == "forgotten"}


@pytest.mark.timeout(120)
def test_what_was_forgotten_does_not_come_back(tmp_path: Path, server: ImageServer) -> None:
    """Neither by a retry, nor under another id that the manifest has got meanwhile."""
    folder = Folder(str(tmp_path / "runs/datasets" / NAME))
    run(options_for(tmp_path / "m.json", items(server, 10)), folder)
    done = forget_items(["3"], storage=str(tmp_path / "runs"))
    assert done["forgotten"][0]["items"] == ["3"]
    grown = options_for(tmp_path / "m.json", items(server, 14))  # 13 has the body of 3, behind the same URL
    server.hits.clear()
    again = run(grown, folder, again=failures())
    assert gone(folder) == {"3", "13"}
    assert server.hits["/image/3.png"] == 0
    assert again.counts == {"ok": 9, "duplicate": 3, "forgotten": 2}


@pytest.mark.timeout(120)
def test_what_is_forgotten_while_an_ingest_works_is_out_at_its_end(tmp_path: Path, server: ImageServer) -> None:
    folder = Folder(str(tmp_path / "runs/datasets" / NAME))
    options = options_for(tmp_path / "m.json", items(server, 10))

    def forget(progress: Progress) -> None:
        if progress.done == progress.total:
            add_request(home_of(folder), [marks_of(NAME, item_id="3")], [], "2031-05-04T10:00:00Z")

    with hold(folder) as lease:
        dataset = ingest(options, folder, lease.fence, on_progress=forget, chunk_items=4)
    assert gone(folder) == {"3"}
    assert dataset.counts == {"ok": 9, "forgotten": 1}
