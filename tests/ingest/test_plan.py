from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from startup_ray.errors import UsageError
from startup_ray.ingest.chunks import commit, read_part, read_shard, read_spool, spool
from startup_ray.ingest.former import recall
from startup_ray.ingest.plan import Plan, demand_split, make_plan, survey
from startup_ray.ingest.seal import clear_spool, seal
from startup_ray.items import BadRow, Item
from startup_ray.job import SplitOptions
from startup_ray.lease import Fence, hold
from startup_ray.ledger import LOST, NOTHING, Again, Outcome, failures
from startup_ray.regions import blur_mark
from startup_ray.storage import Folder
from tests.fakes import read_ledger

Row = Item | BadRow
SPLIT = SplitOptions()


def items(*names: str, status: str = "ok") -> list[Item]:
    return [Item(position=i, id=name, url=f"http://e.com/{name}/{status}", label="l") for i, name in enumerate(names)]


class Fetching:
    """Stands for the fetch actors: the end of an item is in its URL, `asked` tells which URLs were fetched."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.better: dict[str, str] = {}
        """States that differ from what the URL says, by id."""

    def plan(self, rows: Iterable[Row], size: int = 3, again: Again = NOTHING) -> Plan:
        return make_plan(rows, self.folder, self.folder, size, again)

    def carry_out(self, plan: Plan) -> list[str]:
        """Commit what is to be committed; ids that were fetched."""
        self.asked = []
        for name in plan.todo:
            self.commit(name)
        return self.asked

    def commit(self, name: str) -> None:
        spooled = read_spool(self.folder, name)
        outcomes, images = recall(self.folder, spooled, SPLIT)
        for i, one in enumerate(spooled):
            if i in outcomes:
                continue
            if isinstance(one.row, BadRow):
                outcomes[i] = Outcome(id=one.row.id, url=one.row.url, status=one.row.status)
                continue
            self.asked.append(one.row.id)
            outcomes[i], images[i] = self.fetch(one.row, one.attempts + 1)
        pictures = [images[i] for i in sorted(images) if outcomes[i].status == "ok"]
        commit(self.folder, name, [outcomes[i] for i in sorted(outcomes)], pictures)

    def fetch(self, item: Item, attempts: int) -> tuple[Outcome, dict[str, Any]]:
        *_, body, status = item.url.split("/")
        status = self.better.get(item.id, status)
        outcome = Outcome(
            id=item.id,
            url=item.url,
            status=status,
            reason=blur_mark(item.blur) if status == "ok" else "",
            attempts=attempts,
            sha256=f"{hash(body) % 16**13:064x}",
        )
        image = {"id": item.id, "sha256": outcome.sha256, "label": item.label, "image": body.encode()}
        return outcome, image | {"split": item.split or "train", "width": 1, "height": 1, "own": item.own}

    def ingest(self, rows: Sequence[Row], fence: Fence, size: int = 3, again: Again = NOTHING) -> list[str]:
        """As the pipeline does; ids that were fetched."""
        asked: list[str] = []
        for _ in range(3):
            plan = self.plan(rows, size, again)
            asked += self.carry_out(plan)
            if not seal(self.folder, list(plan.chunks), fence).lost:
                clear_spool(self.folder)
                return asked
            again = Again((LOST,))
        raise AssertionError("does not settle")


@pytest.fixture
def world(tmp_path: Path) -> Fetching:
    return Fetching(Folder(str(tmp_path)))


def test_at_first_everything_is_fetched(world: Fetching) -> None:
    plan = world.plan(items("a", "b", "c", "d"))
    assert (list(plan.chunks.values()), plan.todo, plan.kept) == ([3, 1], tuple(plan.chunks), 0)
    assert world.carry_out(plan) == ["a", "b", "c", "d"]
    assert world.plan(items("a", "b", "c", "d")).todo == ()


def test_a_manifest_that_grows_at_any_place_fetches_only_what_is_new(world: Fetching) -> None:
    world.carry_out(world.plan(items("a", "b", "c", "d", "e")))
    plan = world.plan(items("new", "a", "b", "newer", "c", "d", "e", "last"))
    assert plan.kept == 5
    assert world.carry_out(plan) == ["new", "newer", "last"]


def test_another_url_is_another_item_and_another_label_is_not(world: Fetching) -> None:
    first = items("a", "b", "c")
    world.carry_out(world.plan(first))
    changed: list[Row] = [
        replace(first[0], label="new", split="test"),
        replace(first[1], url="http://e.com/b2/ok"),
        replace(first[2], url="http://e.com:8080/c/ok"),
    ]
    plan = world.plan(changed)
    assert world.carry_out(plan) == ["b"]
    part = read_part(world.folder, plan.todo[0])
    images = read_shard(world.folder, part.shard).to_pylist()
    assert (images[0]["label"], images[0]["split"]) == ("new", "test")
    assert [image["image"] for image in images] == [b"a", b"b2", b"c"]


def test_another_hash_is_another_item_where_the_body_had_it_not(world: Fetching) -> None:
    rows = [*items("a", "b", "c"), *items("d", status="changed")]
    world.carry_out(world.plan(rows, size=5))
    sha256 = {row["id"]: f"sha256:{row['sha256']}" for row in read_ledger(world.folder)}
    other = f"sha256:{'0' * 64}"

    def asked(*hashes: str | None) -> list[str]:
        pairs = zip(rows, hashes, strict=True)
        return world.carry_out(world.plan([replace(row, hashes=named) for row, named in pairs], size=5))

    assert asked(sha256["a"], f"{other} md5:{'0' * 32}", f"md5:{'0' * 32}", other) == ["b"]
    assert asked(sha256["a"], sha256["b"], None, sha256["d"]) == ["d"]
    assert asked(None, None, sha256["c"], None) == ["d"]


def test_an_image_is_fetched_again_when_other_boxes_are_to_be_blurred_in_it(world: Fetching) -> None:
    """Gained, lost and changed ones; what ended as no image stands, and so does what moves with its boxes."""
    one, two = "[[0.1, 0.1, 0.2, 0.2]]", "[[0.1, 0.1, 0.3, 0.3]]"
    first = items("none", "one", "two", "same") + items("gone", status="http_404")
    rows = [first[0], replace(first[1], blur=one), replace(first[2], blur=one), replace(first[3], blur=one), first[4]]
    with hold(world.folder) as lease:
        world.ingest(rows, lease.fence)
        assert world.ingest(rows, lease.fence) == []
        changed = [replace(first[0], blur=one), first[1], *(replace(row, blur=two) for row in (first[2], first[4]))]
        assert sorted(world.ingest([*items("new"), rows[3], *changed], lease.fence)) == ["new", "none", "one", "two"]
        assert world.ingest([*items("new"), rows[3], *changed], lease.fence) == []
    reasons = {row["id"]: row["reason"] for row in read_ledger(world.folder)}
    marks = blur_mark(one), blur_mark(two)
    assert reasons == {"none": marks[0], "one": "", "two": marks[1], "same": marks[0], "gone": "", "new": ""}


def test_failures_are_fetched_again_when_asked_for(world: Fetching) -> None:
    rows = items("a") + items("b", "c", status="http_503") + items("d", status="dns") + items("e", "f")
    rows += items("g", status="timeout")
    world.carry_out(world.plan(rows))
    assert world.plan(rows).todo == ()
    only = world.plan(rows, again=failures(["http_5xx"]))
    assert len(only.todo) == 1
    world.better = {"b": "ok"}
    assert world.carry_out(only) == ["b", "c"]
    assert world.carry_out(world.plan(rows, again=failures())) == ["c", "d", "g"]
    ends = {row["id"]: (row["status"], row["attempts"]) for row in read_ledger(world.folder)}
    assert ends == {
        "a": ("ok", 1),
        "b": ("ok", 2),
        "c": ("http_503", 3),
        "d": ("dns", 2),
        "e": ("ok", 1),
        "f": ("ok", 1),
        "g": ("timeout", 2),
    }


def test_a_failure_is_fetched_again_beside_a_row_that_repeats_it(world: Fetching) -> None:
    rows: list[Row] = [*items("a", status="dns"), *items("a", status="dns")]
    with hold(world.folder) as lease:
        world.ingest(rows, lease.fence)
        world.better = {"a": "ok"}
        assert world.ingest(rows, lease.fence, again=failures()) == ["a"]
    assert [row["status"] for row in read_ledger(world.folder)] == ["ok", "bad_item"]


def test_a_chunk_done_twice_is_the_same(world: Fetching) -> None:
    """Ray may run a task again after its commit, which then points to itself."""
    rows = items("a", "b") + items("c", status="dns")
    world.carry_out(world.plan(rows))
    plan = world.plan(rows, again=failures())
    for _ in range(2):
        assert world.carry_out(plan) == ["c"]
        part = read_part(world.folder, plan.todo[0])
        assert [image["id"] for image in read_shard(world.folder, part.shard).to_pylist()] == ["a", "b"]


def test_an_image_that_has_gone_is_fetched(world: Fetching) -> None:
    world.carry_out(world.plan(items("a", "b")))
    plan = world.plan(items("new", "a", "b"))
    world.folder.delete("images")
    assert world.carry_out(plan) == ["new", "a", "b"]


def test_what_the_seal_gives_back_is_fetched_alone(world: Fetching) -> None:
    """The owner of a body and the owner of an id go: those that repeated them come back, and nothing else."""
    rows: list[Row] = [*items("a", "b", "c", "d")]
    rows += [Item(position=4, id="e", url="http://e.com/a/ok"), Item(position=5, id="b", url="http://e.com/x/ok")]
    with hold(world.folder) as lease:
        world.ingest(rows, lease.fence)
        assert [row["status"] for row in read_ledger(world.folder)] == ["ok"] * 4 + ["duplicate", "bad_item"]
        assert world.ingest(rows[2:], lease.fence) == ["e", "b"]
        assert [row["status"] for row in read_ledger(world.folder)] == ["ok"] * 4


@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyzd")), max_size=7), min_size=2, max_size=3
    ),
    st.integers(1, 4),
)
@example([[("a", "x"), ("b", "x")], [("a", "y"), ("a", "x"), ("b", "x"), ("b", "x")]], 2)
def test_any_history_of_a_manifest_ends_like_none(history: list[list[tuple[str, str]]], size: int) -> None:
    """Law: whatever it held before, the ledger is that of a fresh ingest, and no item is fetched twice."""

    def rows_of(state: list[tuple[str, str]]) -> list[Row]:
        ends = {"d": "dns"}
        return [
            Item(position=i, id=name, url=f"http://e.com/{body}/{ends.get(body, 'ok')}")
            for i, (name, body) in enumerate(state)
        ]

    def told(folder: Folder) -> list[tuple[str, str, str]]:
        return [(row["id"], row["status"], row["reason"]) for row in read_ledger(folder)]

    roots = [tempfile.mkdtemp(), tempfile.mkdtemp()]
    worlds = [Fetching(Folder(root)) for root in roots]
    with hold(worlds[0].folder) as lease, hold(worlds[1].folder) as other:
        for before, state in zip([[], *history], history, strict=False):
            asked = worlds[0].ingest(rows_of(state), lease.fence, size)
            assert {name for name, body in state if (name, body) not in before} <= set(asked)
        worlds[1].ingest(rows_of(history[-1]), other.fence, size)
    assert told(worlds[0].folder) == told(worlds[1].folder)
    for root in roots:
        shutil.rmtree(root)


def test_a_survey_writes_nothing_where_the_dataset_lies(world: Fetching, tmp_path: Path) -> None:
    world.carry_out(world.plan(items("a", "b", "c")))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    rows: list[Row] = [*items("a", "b", "c"), Item(position=3, id="d", url="http://other.org:1/d/ok")]
    rows += [BadRow(position=4, id="", url="", status="bad_item", reason="x")]
    rows += [Item(position=5, id="f", url="file:///data/1.jpg"), Item(position=6, id="s", url="s3://bucket/1.jpg")]
    with tempfile.TemporaryDirectory() as spool_root:
        aside = Folder(spool_root)
        found = survey(make_plan(rows, world.folder, aside, 3, NOTHING), aside)
    assert found.document() == {
        "items": 7,
        "to_fetch": 3,
        "bad_rows": {"bad_item": 1},
        "hosts": [{"host": host, "items": 1} for host in ("other.org", "file://", "s3://bucket")],
    }
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_split_by_manifest_demands_one() -> None:
    rows = [*items("a"), Item(position=1, id="b", url="http://e.com/b?token=x", split="val")]
    assert list(demand_split(rows, SPLIT)) == rows
    bad, good = demand_split(rows, SplitOptions(by="manifest"))
    assert (bad.id, bad.status, good) == ("a", "bad_item", rows[1])  # type: ignore[union-attr]


def test_the_states_that_may_be_fetched_again() -> None:
    every = failures()
    taken = [
        state
        for state in ("ok", "duplicate", "bad_item", "bad_url", "dns", "http_404", "opted_out")
        if every.takes(state)
    ]
    assert taken == ["dns", "http_404", "opted_out"]
    some = failures(["http_4xx", "dns"])
    assert [some.takes(state) for state in ("http_404", "http_499", "http_503", "dns", "timeout")] == [
        True, True, False, True, False,
    ]  # fmt: skip
    for wrong, hint in (("timeuot", "did you mean 'timeout'"), ("ok", "there are: "), ("http_9", "there are: ")):
        with pytest.raises(UsageError) as caught:
            failures([wrong])
        assert hint in caught.value.hint
    assert not NOTHING


def test_spool_and_plan_agree(world: Fetching) -> None:
    rows = items("a", "b")
    assert spool(rows, world.folder, 3, ()) == world.plan(rows).chunks
