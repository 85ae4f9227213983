from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from startup_ray.dataset import Digest, image_schema
from startup_ray.errors import RunHeldError
from startup_ray.ingest.chunks import IMAGES, LEDGER, commit, names_in, read_part, read_shard
from startup_ray.ingest.seal import Sealed, seal
from startup_ray.lease import Fence, hold
from startup_ray.ledger import Outcome
from startup_ray.storage import Folder
from tests.fakes import read_ledger

Row = tuple[str, str]
"""Id and body of an image, or id and a state in capitals for one that failed."""


def put(folder: Folder, rows: Sequence[Row], size: int) -> list[str]:
    """Commit rows as fetch actors would, in chunks; chunks that are there stay."""
    names = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        names.append(f"{start // size:06d}-{hashlib.sha256(repr(chunk).encode()).hexdigest()[:8]}")
        if names[-1] not in names_in(folder, LEDGER):
            commit(folder, names[-1], [outcome(row) for row in chunk], [picture(row) for row in chunk if is_ok(row)])
    return names


def is_ok(row: Row) -> bool:
    return not row[1].isupper()


def outcome(row: Row) -> Outcome:
    if is_ok(row):
        return Outcome(id=row[0], url="u", status="ok", sha256=f"sha-{row[1]}")
    return Outcome(id=row[0], url="u", status=row[1].lower(), reason="broken")


def picture(row: Row) -> dict[str, Any]:
    size = {"width": 1, "height": 1, "own": None}
    return {"id": row[0], "sha256": f"sha-{row[1]}", "label": row[1], "split": "train", "image": row[1].encode()} | size


def expected(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """State and reason of each row, the slow and obvious way."""
    ids: dict[str, int] = {}
    bodies: dict[str, str] = {}
    ends = []
    for i, row in enumerate(rows):
        if row[0] and ids.setdefault(row[0], i) != i and row[1] != "BAD_ITEM":
            ends.append(("bad_item", f"repeats the id of row {ids[row[0]]}"))
        elif not is_ok(row):
            ends.append((row[1].lower(), "broken"))
        elif bodies.setdefault(row[1], row[0]) != row[0]:
            ends.append(("duplicate", bodies[row[1]]))
        else:
            ends.append(("ok", ""))
    return ends


def settle(folder: Folder, rows: Sequence[Row], size: int, fence: Fence) -> Sealed:
    """Fetch and seal until nothing is lost, as the pipeline does, though whole chunks at a time."""
    for _ in range(10):
        sealed = seal(folder, put(folder, rows, size), fence)
        if not sealed.lost:
            return sealed
        for name in sealed.lost:
            folder.delete(f"{LEDGER}/{name}.parquet")
    raise AssertionError("does not settle")


def check(folder: Folder, rows: Sequence[Row], sealed: Sealed) -> None:
    ends = [(row["status"], row["reason"]) for row in read_ledger(folder)]
    assert ends == expected(rows)
    assert sealed.items == len(rows) == sum(sealed.counts.values())
    kept = [row for row, end in zip(rows, ends, strict=True) if end[0] == "ok"]
    shards = [read_part(folder, name).shard for name in names_in(folder, LEDGER)]
    assert sorted(filter(None, shards)) == names_in(folder, IMAGES)
    stored = [image for shard in filter(None, shards) for image in read_shard(folder, shard).to_pylist()]
    assert [(image["id"], image["image"].decode()) for image in stored] == kept
    digest = Digest()
    digest.update((name, f"sha-{body}", body, "train") for name, body in sorted(kept))
    assert sealed.digest == digest.text()
    assert sealed.splits == {"train": len(kept), "val": 0, "test": 0}


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b", "c", "d", "ä", "B"]), st.sampled_from(["x", "y", "z", "w", "DNS", "BAD_ITEM"])
    ).filter(lambda row: row[0] or row[1] == "BAD_ITEM"),
    min_size=1,
    max_size=10,
)


@settings(max_examples=5, deadline=None)
@given(ROWS, ROWS, st.integers(1, 4))
def test_the_lowest_position_wins_and_twice_is_once(before: list[Row], rows: list[Row], size: int) -> None:
    """Whatever an earlier state of the manifest left behind, the end is that of the present one."""
    root = tempfile.mkdtemp()
    folder = Folder(root)
    with hold(folder) as lease:
        settle(folder, before, size, lease.fence)
        sealed = settle(folder, rows, size, lease.fence)
        check(folder, rows, sealed)
        assert seal(folder, put(folder, rows, size), lease.fence) == sealed
    shutil.rmtree(root)


class Stop(BaseException):
    pass


class Dying(Folder):
    """A folder whose process is killed before its n-th write or deletion."""

    left = 0

    def put_whole(self, name: str, data: bytes) -> None:
        self._count()
        super().put_whole(name, data)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)

    def _count(self) -> None:
        Dying.left -= 1
        if Dying.left < 0:
            raise Stop


def test_killed_at_every_write(tmp_path: Path) -> None:
    rows = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "x"), ("d", "DNS"), ("e", "y"), ("f", "w"), ("g", "z")]
    for steps in range(100):
        folder = Folder(str(tmp_path / str(steps)))
        with hold(folder) as lease:
            names = put(folder, rows, 3)
            Dying.left = steps
            try:
                seal(Dying(folder.uri), names, lease.fence)
            except Stop:
                check(folder, rows, settle(folder, rows, 3, lease.fence))
            else:
                assert steps == 5  # a shard and two parts are written, two shards deleted
                return
    raise AssertionError("never ends")


def test_a_shard_that_has_gone_is_fetched_again(tmp_path: Path) -> None:
    folder, rows = Folder(str(tmp_path)), [("a", "x"), ("b", "y")]
    with hold(folder) as lease:
        names = put(folder, rows, 1)
        folder.delete(f"{IMAGES}/{read_part(folder, names[1]).shard}.parquet")
        assert seal(folder, names, lease.fence).lost == (names[1],)
        check(folder, rows, settle(folder, rows, 1, lease.fence))


def test_strangers_are_removed(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        put(folder, [("old", "x")], 1)
        folder.put_whole(f"{IMAGES}/000000-00000000-dead.parquet", b"no commit names me")
        check(folder, [("a", "y")], settle(folder, [("a", "y")], 1, lease.fence))
    assert image_schema().names[-1] == "image"


def test_what_killed_processes_left_half_written_goes(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    drafts = [tmp_path / kind / ".tmp-0a1b" for kind in (IMAGES, LEDGER)]
    with hold(folder) as lease:
        names = put(folder, [("a", "x")], 1)
        for draft in drafts:
            draft.write_bytes(b"half")
        seal(folder, names, lease.fence)
    assert not any(draft.exists() for draft in drafts)


LOG: list[str] = []


class LoggedFence(Fence):
    def check(self) -> None:
        LOG.append("check")
        super().check()


class LoggedFolder(Folder):
    def delete(self, name: str) -> None:
        LOG.append(name)
        super().delete(name)

    def clear_drafts(self, name: str = "") -> None:
        LOG.append(name)
        super().clear_drafts(name)


def test_the_lease_is_looked_at_before_each_deletion(tmp_path: Path) -> None:
    """Else a process that has slept deletes what the next owner has written since."""
    folder = LoggedFolder(str(tmp_path))
    lone = [f"{kind}/00000{i}-lone.parquet" for kind in (LEDGER, IMAGES) for i in (7, 8)]
    with hold(folder) as lease:
        names = put(folder, [("a", "x"), ("b", "x")], 1)  # the second loses its shard
        for name in lone:
            folder.put_whole(name, b"")
        LOG.clear()
        seal(folder, names, LoggedFence(folder, lease.fence.number, lease.fence.nonce))
    deleted = [i for i, event in enumerate(LOG) if event.endswith(".parquet")]
    assert {LOG[i] for i in deleted} > set(lone)
    assert len(deleted) == 5
    assert {LOG[i - 1] for i in deleted} == {"check"}
    drafts = LOG.index(IMAGES)
    assert LOG[drafts - 1 : drafts + 2] == ["check", IMAGES, LEDGER]


def test_a_lost_lease_stops_the_seal(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        names = put(folder, [("a", "x")], 1)
    with hold(folder), pytest.raises(RunHeldError):
        seal(folder, names, lease.fence)
