"""Laws from the bytes of a manifest to the sealed ledger, for whatever hypothesis thinks of."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from startup_ray.dataset import SPLITS, split_of
from startup_ray.errors import DataError, ManifestError
from startup_ray.ingest.chunks import IMAGES, LEDGER, commit, names_in, read_shard
from startup_ray.ingest.seal import Sealed, seal
from startup_ray.items import MAX_ID, BadRow, Item, parse_row
from startup_ray.job import SplitOptions
from startup_ray.lease import hold
from startup_ray.ledger import STATES, Outcome, check_law, count, redact
from startup_ray.manifests.forms import Kind
from startup_ray.manifests.rows import json_rows
from startup_ray.storage import Folder
from tests.fakes import manifest_of, read_ledger

SURROGATES = st.characters(categories=["Cs"])
ODD = st.sampled_from(
    ["../../etc/passwd", "/dev/null", "C:\\con", "a\0b", "\u202egnp.exe", "a\nb", "é", "e\u0301", "%2e"]
)
TEXT = (
    st.text() | st.text(SURROGATES | st.characters(), max_size=5) | ODD | st.builds("x".__mul__, st.integers(0, 9_000))
)
NUMBERS = st.integers() | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
URL = st.just("http://e.com/a") | TEXT.map("http://e.com/".__add__) | JSON
ROW = st.fixed_dictionaries(
    {}, optional={"id": JSON, "url": URL, "label": JSON, "split": JSON | st.sampled_from(SPLITS)}
)
IDS = (st.text(min_size=1, max_size=MAX_ID) | ODD).filter(lambda text: bool(text.strip()))


def is_storable(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


@given(ROW | JSON, st.integers(0, 2**62))
def test_any_value_is_exactly_one_row(value: Any, position: int) -> None:
    row = parse_row(value, position, place="m:3")
    assert isinstance(row, Item) != isinstance(row, BadRow)
    assert row.position == position
    assert is_storable(row.id)
    assert is_storable(row.url)
    given_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(value, dict) and "id" not in value:
        assert row.id == "m:3" or re.fullmatch("[0-9a-f]{16}", row.id)
        given_id = row.id
    if isinstance(row, BadRow):
        assert row.status in STATES
        assert row.reason
        assert row.id in ("", str(given_id))
    else:
        assert (row.id, row.url) == (str(given_id), value["url"])
        assert row.label == (None if value.get("label") is None else str(value["label"]))
        assert row.split in (None, *SPLITS)


@settings(max_examples=15, deadline=None)
@given(st.lists(IDS, min_size=1, max_size=6, unique=True))
def test_an_id_is_data_and_never_a_path(ids: list[str]) -> None:
    """Ids come back from storage as they were, and no file is named after one."""
    rows = [parse_row(json.loads(json.dumps({"id": name, "url": "http://e.com/a"})), 0) for name in ids]
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(root)
        images = [image(name, "x", label=name) for name in ids]
        commit(folder, "000000-key", [Outcome(id=row.id, url=row.url, status="ok") for row in rows], images)
        assert [row["id"] for row in read_ledger(folder)] == ids
        (shard,) = names_in(folder, IMAGES)
        assert read_shard(folder, shard).select(["id", "label"]).to_pylist() == [
            {"id": name, "label": name} for name in ids
        ]
        assert (names_in(folder, LEDGER), shard[:11]) == (["000000-key"], "000000-key-")


def image(name: str, body: str, label: str | None = None) -> dict[str, Any]:
    size = {"width": 1, "height": 1, "own": None}
    return {"id": name, "sha256": sha256(body), "label": label, "split": "train", "image": body.encode()} | size


def sha256(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


class Trickle(io.BufferedReader):
    """A stream that hands out few bytes at a time, so that every sign of a text is once the last of a block."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(io.BytesIO(data))
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most if size is None or size < 0 else min(size, self._most))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(JSON | ROW, min_size=1, max_size=6),
    st.dictionaries(TEXT.filter(lambda key: key != "items"), JSON, max_size=2),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.integers(1, 7),
)
def test_rows_are_those_of_json_wherever_the_blocks_end(
    values: list[Any], beside: dict[str, Any], ascii_only: bool, indent: int | None, most: int
) -> None:
    for document in (values, beside | {"items": values}, {"items": values} | beside):
        text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
        data = text.encode(errors="replace")  # bare halves of surrogate pairs are no UTF-8
        loaded = json.loads(data)
        expected = loaded if isinstance(document, list) else loaded["items"]
        found = list(json_rows(Trickle(data, most), "m"))
        assert json.dumps(found) == json.dumps(expected)  # as text, because NaN is no equal of itself


@given(st.binary(max_size=200) | st.text(st.sampled_from('[]{}",:\\ \n1etrufalsn')).map(str.encode), st.integers(1, 9))
def test_any_bytes_are_rows_or_a_manifest_error(data: bytes, most: int) -> None:
    forms: tuple[Kind, ...] = ("json", "jsonl", "csv", "txt")
    for start in (b"", b"[", b'{"items": [', b'{"a": 1, ', b"url\n"):
        for form in forms:
            with suppress(ManifestError):
                rows = list(manifest_of(io.BytesIO(start + data), form).rows())
                assert [row.position for row in rows] == list(range(len(rows)))
        with suppress(ManifestError):
            list(json_rows(Trickle(start + data, most), "m"))


STATE = st.sampled_from([*(name for name in STATES if name != "http_NNN"), "http_404", "http_503"])


@given(
    st.lists(st.lists(STATE, max_size=6), max_size=5).flatmap(
        lambda parts: st.tuples(st.just(parts), st.permutations(parts))
    )
)
def test_counts_of_parts_add_up_in_any_order(parts: tuple[list[list[str]], list[list[str]]]) -> None:
    first, second = (sum((Counter(count(part)) for part in order), Counter[str]()) for order in parts)
    whole = count([status for part in parts[0] for status in part])
    assert first == second == whole


@given(st.dictionaries(STATE | st.text(max_size=8), st.integers(0, 9), max_size=5), st.integers(0, 20))
def test_the_law_holds_exactly_if_all_states_are_known_and_add_up(counts: dict[str, int], items: int) -> None:
    holds = all(name in STATES or name in ("http_404", "http_503") for name in counts) and sum(counts.values()) == items
    if holds:
        check_law(counts, items)
    else:
        with pytest.raises(DataError):
            check_law(counts, items)


SECRET_NAMES = st.sampled_from(
    ["sig", "X-Amz-Signature", "token", "AccessKeyId", "Policy", "pwd", "hdnea", "jsessionid"]
)
PLAIN = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=6)
FIELDS = st.lists(st.tuples(PLAIN, PLAIN).map("=".join), max_size=3)


@given(PLAIN, FIELDS, SECRET_NAMES, FIELDS, st.sampled_from("&;"), PLAIN)
def test_no_planted_secret_is_left(
    path: str, before: list[str], name: str, after: list[str], between: str, fragment: str
) -> None:
    query = between.join([*before, f"{name}=hunter2", *after])
    for url in (f"http://h/{path}?{query}", f"http://u{path}:hunter2@h/{path}?{query}#{fragment}=hunter2"):
        hidden = redact(url)
        assert "hunter2" not in hidden
        assert redact(hidden) == hidden
        assert hidden.startswith(f"http://h/{path}?")


@given(st.floats(0, 0.45), st.floats(0, 0.45), st.binary())
def test_a_split_never_changes_unless_its_bounds_pass_it(val: float, test: float, body: bytes) -> None:
    digest = hashlib.sha256(body).hexdigest()
    split = split_of(digest, SplitOptions(val=val, test=test))
    place = int(digest, 16) / 2**256
    assert (
        split == ("test" if place < test else "val" if place < test + val else "train")
        or min(abs(place - test), abs(place - test - val)) < 1e-9
    )
    if split == "test":
        assert split_of(digest, SplitOptions(val=val, test=test + 0.05)) == "test"


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.2), (0.0, 0.5), (0.01, 0.01)])
def test_splits_are_near_their_shares(val: float, test: float) -> None:
    number = 20_000
    found = Counter(split_of(sha256(str(i)), SplitOptions(val=val, test=test)) for i in range(number))
    for name, share in (("val", val), ("test", test), ("train", 1 - val - test)):
        deviation = (share * (1 - share) / number) ** 0.5
        assert abs(found[name] / number - share) <= 5 * deviation


@dataclass(frozen=True)
class Ended:
    """A row of a manifest as a fetch actor leaves it: an image with this body, or a failure without."""

    id: str
    body: str
    status: str = "ok"


ENDED = st.builds(Ended, st.sampled_from("abcdef"), st.sampled_from("uvwxyz")) | st.builds(
    Ended, st.sampled_from("abcdef") | st.just(""), st.just(""), st.sampled_from(["bad_item", "http_404", "dns"])
)


def sealed(rows: Sequence[Ended], cuts: Sequence[int]) -> tuple[Sealed, list[tuple[str, str, str]]]:
    """Commit the rows in chunks that end at the cuts, and seal them twice."""
    bounds = sorted({0, len(rows), *(cut % len(rows) for cut in cuts)})
    with tempfile.TemporaryDirectory() as root, hold(Folder(root)) as lease:
        folder, names = Folder(root), list[str]()
        for start, stop in pairwise(bounds):
            names.append(f"{len(names):06d}-key")
            part = rows[start:stop]
            outcomes = [
                Outcome(id=row.id, url="u", status=row.status, sha256=sha256(row.body) if row.body else None)
                for row in part
            ]
            commit(folder, names[-1], outcomes, [image(row.id, row.body) for row in part if row.status == "ok"])
        first = seal(folder, names, lease.fence)
        files = {kind: names_in(folder, kind) for kind in (LEDGER, IMAGES)}
        assert seal(folder, names, lease.fence) == first
        assert {kind: names_in(folder, kind) for kind in (LEDGER, IMAGES)} == files
        return first, [(row["id"], row["status"], row["reason"]) for row in read_ledger(folder)]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ENDED, min_size=1, max_size=12), st.lists(st.integers(0, 11), max_size=5))
def test_the_seal_does_not_depend_on_the_chunks(rows: list[Ended], cuts: list[int]) -> None:
    (whole, ends), (cut, cut_ends) = sealed(rows, []), sealed(rows, cuts)
    assert cut_ends == ends
    assert (cut.counts, cut.digest, cut.splits) == (whole.counts, whole.digest, whole.splits)
    check_law(cut.counts, len(rows))
    images = {(row.id, row.body) for row in rows if row.status == "ok"}
    assert cut.counts.get("ok", 0) <= min(len({name for name, _ in images}), len({body for _, body in images}))
