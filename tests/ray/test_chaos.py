"""Five thousand items over many hosts with every kind of fault: each ends in the state that it must end in."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from startup_ray.dataset import Dataset
from startup_ray.ingest.pipeline import ingest
from startup_ray.job import IngestOptions
from startup_ray.lease import hold
from startup_ray.ledger import check_law
from startup_ray.storage import Folder
from tests.chaos_faults import (
    ALLOWED,
    BROKEN,
    FAULTS,
    FORBIDDEN,
    HOSTS,
    MAX_BYTES,
    MAX_PIXELS,
    MAX_REDIRECTS,
    REFUSES,
    SECRET,
    SILENT,
)
from tests.chaos_server import ChaosServer
from tests.fakes import read_ledger

pytestmark = pytest.mark.usefixtures("ray_session")

ITEMS = 5_000
EACH, SLOW = 24, 4
"""Items with each fault, and with each that takes seconds."""
ILL = {REFUSES: 60, BROKEN: 60, SILENT: 12}
"""Items of the hosts that only fail; enough that a circuit breaker opens."""


LATE = ITEMS // 20
"""Items asked for once more: a machine that stands still for seconds lets what is under way run out of time."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the manifest, and how it must end."""

    value: Any
    id: str
    state: str
    attempts: int | None
    """None where it does not matter, or is not known."""
    otherwise: str = ""
    """Another state that is as right."""
    body: object = None
    """Equal for rows whose images are equal."""


def fetched(server: ChaosServer, number: int, fault: str, *, name: str = "", **change: Any) -> Row:
    """A row with this fault. Its id would lead out of every folder if it were ever a path."""
    known = FAULTS[fault]
    item_id = name or f"../../{fault}/{number}"
    value = {"id": item_id, "url": server.url(fault, number), "label": fault} | change
    return Row(
        value=value, id=item_id, state=known.state, attempts=known.attempts, otherwise=known.otherwise, body=number
    )


def unfetchable(port: int, numbers: Iterator[int]) -> Iterator[Row]:
    """Rows that end before, or instead of, a request."""
    inside = ("127.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "localhost", "169.254.169.254", "10.0.0.1")
    good = f"http://{HOSTS[0]}:{port}/ok/1?sig={SECRET}"
    urls = [
        *((f"http://{host}:{port}/ok/1?sig={SECRET}", "blocked_address", 1) for host in inside),
        (f"https://{HOSTS[3]}:{port}/ok/1?sig={SECRET}", "tls", 1),
        (f"http://chaos.invalid:{port}/ok/1?sig={SECRET}", "dns", None),
        (f"file:///etc/passwd?sig={SECRET}", "blocked_scheme", 0),
        (f"ftp://{HOSTS[0]}/ok/1?sig={SECRET}", "blocked_scheme", 0),
        (f"http://[::1?sig={SECRET}", "bad_url", 0),
        (f"//{HOSTS[0]}/ok/1?sig={SECRET}", "bad_url", 0),
        (None, "bad_url", 0),
    ]
    for (url, state, attempts), _ in product(urls, range(8)):
        item_id = f"{state} {next(numbers)}"
        yield Row(value={"id": item_id, "url": url}, id=item_id, state=state, attempts=attempts)
    no_ids: list[Any] = [None, "", " ", 1.5, True, [], "x" * 600, "\ud800"]
    for no_id in no_ids:
        yield Row(value={"id": no_id, "url": good}, id="", state="bad_item", attempts=0)
    no_rows: list[Any] = [None, 7, "text", [], {}]
    for no_row in no_rows:
        yield Row(value=no_row, id="", state="bad_item", attempts=0)
    changes: list[dict[str, Any]] = [{"label": {}}, {"split": "holdout"}, {"url": "http://a/" + "x" * 9_000}]
    for change in changes:
        item_id = f"bad item {next(numbers)}"
        yield Row(value={"id": item_id, "url": good} | change, id=item_id, state="bad_item", attempts=0)


def make_rows(server: ChaosServer) -> list[Row]:
    """All rows, shuffled, with the ends that repeated ids and bodies have in that order."""
    numbers = count(100)
    rows = list(unfetchable(server.port, numbers))
    for name, fault in FAULTS.items():
        is_slow = fault.state == "timeout" or name.startswith("retry-after")
        rows += [
            fetched(server, next(numbers), name) for _ in range(ILL.get(fault.host) or (SLOW if is_slow else EACH))
        ]
    rows += [fetched(server, number, "ok", name=f"again {number}") for number in range(100)]
    rows += [fetched(server, number, "ok") for number in range(100)]
    rows += [fetched(server, next(numbers), "ok", name=f"again {number}") for number in range(40)]
    rows += [fetched(server, next(numbers), "ok") for _ in range(ITEMS - len(rows))]
    random.Random(3).shuffle(rows)
    return list(settled(rows))


def settled(rows: Sequence[Row]) -> Iterator[Row]:
    """The first row with an id owns it; of equal images the first is kept."""
    ids: dict[str, int] = {}
    bodies: dict[object, int] = {}
    for place, row in enumerate(rows):
        if row.value == {}:  # it says nothing of an id, so it is called by its place
            yield replace(row, id=f"m.jsonl:{place}", state="bad_url")
        elif row.id and ids.setdefault(row.id, place) != place:
            yield replace(row, state="bad_item", attempts=None)
        elif row.state == "ok" and bodies.setdefault(row.body, place) != place:
            yield replace(row, state="duplicate")
        else:
            yield row


def run(server_rows: Sequence[Row], path: Path) -> Dataset:
    manifest = path / "m.jsonl"
    manifest.write_text("\n".join(json.dumps(row.value) for row in server_rows))
    fetch = {
        "allow_private": ALLOWED + tuple(f"{host}/32" for host in ILL),
        "timeout_s": 3,
        "retries": 1,
        "max_bytes": MAX_BYTES,
        "max_pixels": MAX_PIXELS,
        "max_redirects": MAX_REDIRECTS,
    }
    options = IngestOptions.model_validate({"manifest": str(manifest), "fetch": fetch})
    folder = Folder(str(path / "data"))
    with hold(folder) as lease:
        return ingest(options, folder, lease.fence)


def told(row: Row, end: dict[str, Any]) -> str:
    return (
        f"{row.id}: {end['status']} after {end['attempts']} attempts ({end['reason']}), "
        f"not {row.state} after {row.attempts}"
    )


def texts_in(path: Path) -> Iterator[str]:
    """All that can be read in a file of a dataset, compressed or not."""
    yield path.read_bytes().decode("latin-1")
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield str(table.schema.metadata)
        yield from (str(value) for name in table.column_names if name != "image" for value in table[name].to_pylist())


@pytest.mark.timeout(240)
def test_every_item_ends_in_its_state(tmp_path: Path) -> None:
    with ChaosServer() as server:
        rows = make_rows(server)
        dataset = run(rows, tmp_path)
        ledger = read_ledger(dataset.folder)
        hits = server.hits.copy()
        assert run(rows, tmp_path) == dataset
        assert server.hits == hits  # a second run has nothing left to fetch
    assert len(ledger) == ITEMS
    assert [row["id"] for row in ledger] == [row.id for row in rows]
    ends = list(zip(rows, ledger, strict=True))
    assert [told(row, end) for row, end in ends if end["status"] not in (row.state, row.otherwise)] == []
    asked = [(row, end) for row, end in ends if row.attempts is not None]
    assert [told(row, end) for row, end in asked if end["attempts"] < (row.attempts or 0)] == []
    late = [told(row, end) for row, end in asked if end["attempts"] > (row.attempts or 0)]
    assert len(late) <= LATE, late
    assert dataset.counts == dict(Counter(end["status"] for end in ledger))
    check_law(dataset.counts, ITEMS)
    assert sum(dataset.splits.values()) == dataset.counts["ok"]
    assert server.connections[FORBIDDEN] == 0
    assert server.cookies == 0
    given_up = {row.value["label"] for row, end in zip(rows, ledger, strict=True) if "given up" in end["reason"]}
    assert {"refuses", "always-503"} <= given_up
    assert given_up <= {"refuses", "redirect-to-dead", "always-503", "says-nothing"}  # good answers keep a host open
    files = [path for path in Path(dataset.folder.uri).rglob("*") if path.is_file()]
    assert not [path for path in files for text in texts_in(path) if SECRET in text]
    logs = [path for path in Path(os.environ["HOME"]).glob("session_*/logs/**/*") if path.is_file()]
    assert logs
    assert not [path for path in logs if SECRET.encode() in path.read_bytes()]
