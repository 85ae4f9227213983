"""Laws of reading rows: the same in every form, and bounded whatever the bytes hold."""

from __future__ import annotations

import io
import json
import tracemalloc
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.errors import ManifestError
from startup_ray.items import BadRow, Item
from startup_ray.manifests.forms import Kind
from startup_ray.manifests.rows import MAX_ROW
from tests.fakes import manifest_of

GOOD = {"id": "a", "url": "http://example.com/a.png"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PIECES = [b'"', b"\\", b"[", b"]", b"{", b"}", b",", b":", b"\n", b"\xff", b"\xef\xbb\xbf", b"\x00", b"1" * 5_000]
NEAR = st.fixed_dictionaries(
    {}, optional={"id": JSON, "url": JSON | st.just("http://e.com/a"), "label": JSON, "split": JSON}
)


def rows_of(data: bytes, form: Kind) -> list[Item | BadRow]:
    return list(manifest_of(io.BytesIO(data), form).rows())


@given(
    st.lists(JSON | NEAR, min_size=1, max_size=8),
    st.dictionaries(st.text().filter(lambda key: key != "items"), JSON, max_size=2),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_every_form_of_any_values_gives_the_same_rows(
    values: list[Any], beside: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    write = partial(json.dumps, ensure_ascii=ascii_only)
    lines = rows_of("\n".join(map(write, values)).encode(), "jsonl")
    assert rows_of(write(values, indent=indent).encode(), "json") == lines
    assert rows_of(write(beside | {"items": values} | {"more": beside}, indent=indent).encode(), "json") == lines
    assert [row.position for row in lines] == list(range(len(values)))
    for row in lines:
        "".join([row.id, row.url]).encode()  # what cannot be stored as UTF-8 has been refused


@given(
    st.lists(JSON | NEAR, min_size=1, max_size=4),
    st.sampled_from(["json", "list", "jsonl"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4) | st.sampled_from(PIECES))),
)
def test_garbled_bytes_are_a_manifest_error_or_rows(
    values: list[Any], form: str, changes: list[tuple[int, int, bytes]]
) -> None:
    text = "\n".join(map(json.dumps, values)) if form == "jsonl" else json.dumps({"items": values, "a": values})
    data = json.dumps(values).encode() if form == "list" else text.encode()
    for place, removed, added in changes:
        data = data[:place] + added + data[place + removed :]
    for part in (data, data[: len(data) // 2]):
        with suppress(ManifestError):
            rows_of(part, "jsonl" if form == "jsonl" else "json")


def joined(rows: list[str], form: str) -> bytes:
    text = {"jsonl": "\n".join(rows), "list": f"[{','.join(rows)}]"}.get(form)
    return (text or f'{{"version": 1, "items": [\n{", ".join(rows)}\n]}}').encode()


@pytest.mark.parametrize("form", ["json", "list", "jsonl"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1" * 5_000, "too long a number"),
        ('{"id": %s}' % ("1" * 5_000), "too long a number"),
        ("[" * 200_000 + "]" * 200_000, "too deep a nesting"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "too deep a nesting"),
        ('{"id": 1e99999999999999999999, "url": "http://a/b"}', "id is neither"),
        ('{"id": NaN, "url": "http://a/b"}', "id is neither"),
        (r'{"id": "\ud800", "url": "http://a/b"}', "id is not Unicode"),
        ('{"id": 1 "url": 2}', "is not JSON"),
        ("nul", "is not JSON"),
        ('"' + "x" * MAX_ROW + '"', "is longer than"),
        ('"' + r"\"" * (MAX_ROW // 2) + '"', "is longer than"),
        ('{"id": "' + r"\\\\" * (MAX_ROW // 3) + '"}', "is longer than"),
        ('{"id": "' + "[" * MAX_ROW + '"}', "is longer than"),
        ("[" + "{}," * (MAX_ROW // 3 + 9) + "{}]", "is longer than"),
        ('{"id": 1' + " " * 3 * MAX_ROW + "}", "is longer than"),
        ("7" * 3 * MAX_ROW, "is longer than"),
    ],
)  # fmt: skip
def test_a_hostile_row_is_one_bad_row_in_every_form(form: str, row: str, reason: str) -> None:
    good = json.dumps(GOOD)
    first, bad, *last = rows_of(joined([good, row, good, good], form), "jsonl" if form == "jsonl" else "json")
    assert isinstance(bad, BadRow)
    assert bad.status == "bad_item"
    assert reason in bad.reason
    assert [type(other) for other in (first, *last)] == [Item, Item, Item]


@pytest.mark.parametrize("form", ["json", "list", "jsonl"])
@pytest.mark.parametrize(
    ("head", "letter", "tail"), [('"', "x", '"'), ("", "1", ""), ('{"id":"', "x", '"}'), ("[", " ", "]")]
)
def test_the_longest_row(form: str, head: str, letter: str, tail: str) -> None:
    longest = head + letter * (MAX_ROW - len(head + tail)) + tail
    rows = joined(["0", longest, head + letter + longest.removeprefix(head), "0"], form)
    _, kept, long, _ = rows_of(rows, "jsonl" if form == "jsonl" else "json")
    assert isinstance(kept, BadRow)
    assert isinstance(long, BadRow)
    assert "is longer than" not in kept.reason or "characters" in kept.reason
    assert f"is longer than {MAX_ROW} bytes" in long.reason


class Repeated(io.RawIOBase):
    """`head`, then `piece` again and again, `size` bytes in all."""

    def __init__(self, head: bytes, piece: bytes, size: int) -> None:
        self.head, self.block, self.left = head, piece * (1 << 10), size

    def read(self, size: int = -1) -> bytes:
        data = (self.head or self.block)[: min(size, self.left)]
        self.head = self.head[len(data) :]
        self.left -= len(data)
        return data


@pytest.mark.parametrize("form", ["json", "jsonl"])
@pytest.mark.parametrize("head", [b"", b"[", b'{"items": [1, ', b'{"more": ', b"{"])
@pytest.mark.parametrize("piece", [b"[", b'{"a":', b'"', b'"\\', b"1", b""])
def test_memory_is_bounded_whatever_the_file_holds(form: Kind, head: bytes, piece: bytes) -> None:
    letter = b" " if piece != b"1" else b"1"  # few brackets and many bytes, because tracing takes its time
    stream = Repeated(head + piece, (piece if b'"' not in piece[:1] else piece[1:]) + letter * 500, 12 * MAX_ROW)
    tracemalloc.start()
    try:
        with suppress(ManifestError):
            for _ in manifest_of(stream, form).rows():
                pass
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_ROW
    finally:
        tracemalloc.stop()


def test_a_broken_row_is_a_bad_row_with_its_line() -> None:
    text = json.dumps(GOOD) + '\n{"id": \n' + '"' + "x" * MAX_ROW * 2 + '"\n' + json.dumps(GOOD)
    _, broken, long, last = rows_of(text.encode(), "jsonl")
    assert isinstance(broken, BadRow)
    assert isinstance(long, BadRow)
    assert "line 2 is not JSON" in broken.reason
    assert "line 3 is longer" in long.reason
    assert isinstance(last, Item)
    text = '{"items": [\n{"id": 1},\n{"id": 2,\n"url" 3},\n"' + "x" * MAX_ROW * 2 + '",\n' + json.dumps(GOOD) + "]}"
    _, broken, long, last = rows_of(text.encode(), "json")
    assert isinstance(broken, BadRow)
    assert isinstance(long, BadRow)
    assert "line 4 is not JSON" in broken.reason
    assert "line 5 is longer" in long.reason
    assert isinstance(last, Item)
