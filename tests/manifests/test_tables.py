"""Laws of reading tables in text: RFC 4180, one bad row for one bad line, and bounded memory and time."""

from __future__ import annotations

import csv
import io
import json
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions
from startup_ray.items import NoRow
from startup_ray.manifests.rows import MAX_ROW
from startup_ray.manifests.streams import Stream
from startup_ray.manifests.tables import csv_rows, txt_rows

COLUMNS = ColumnOptions()
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=9)


def read(data: bytes | str, columns: ColumnOptions = COLUMNS, delimiter: str = ",") -> list[Any]:
    stream = Stream(io.BytesIO(data.encode() if isinstance(data, str) else data), "m.csv")
    return list(csv_rows(stream, "m.csv", columns, delimiter))


def faults(rows: list[Any]) -> list[str]:
    return [row.reason for row in rows if isinstance(row, NoRow)]


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1), st.sampled_from(["excel", "excel-tab", "unix"]))
def test_what_the_csv_module_writes_is_read_back(pairs: list[tuple[str, str]], dialect: str) -> None:
    out = io.StringIO()
    csv.writer(out, dialect).writerows([("url", "label"), *pairs])
    rows = read(out.getvalue(), delimiter="\t" if dialect == "excel-tab" else ",")
    assert rows == [{"url": url or None, "label": label or None} for url, label in pairs]


def test_boxes_stay_texts_and_their_column_is_asked_for() -> None:
    columns = ColumnOptions(blur="blur")
    assert read('url,blur\na,"[[0, 0, 1, 1]]"\nb,\nc,7', columns) == [
        {"url": "a", "blur": "[[0, 0, 1, 1]]"},
        {"url": "b", "blur": None},
        {"url": "c", "blur": "7"},
    ]
    with pytest.raises(ManifestError, match="no column 'blur'"):
        read("url\na", columns)


@pytest.mark.parametrize(
    "data", ["\ufeffurl,n\na,1\n", "url,n\r\na,1\r\n", "url,n\na,1", "url,n\n\n\na,1\n\n", " url , n\na,1"]
)
def test_marks_line_ends_and_empty_lines(data: str) -> None:
    assert read(data) == [{"url": "a", "n": 1}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1", 1), ("-1.5", -1.5), ("1e3", 1000.0), ("0", 0), ("", None)],
        *[(text, text) for text in ("007", "1_0", "NaN", "1" * 400, "1e999", "true", " 1", "٣")],
    ],
)
def test_numbers_of_json_in_own_columns_are_numbers(text: str, value: Any) -> None:
    (row,) = read(f"url,label,own\n{text},{text},{text}\n")
    assert row == {"url": text or None, "label": text or None, "own": value}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("http://e.com/3", "line 3 has 1 columns, not 2"),
        ("a,b,c", "line 3 has 3 columns, not 2"),
        ('a,"open', "line 3 has a quote that is never closed"),
        ('a,"' + "x" * 200_000 + '"', "line 3 is no row of a table: field larger"),
        ("a," + "x" * (MAX_ROW + 9), f"the row of line 3 is longer than {MAX_ROW} bytes"),
    ],
)
def test_a_fault_costs_its_own_line(line: str, reason: str) -> None:
    first, bad, *rest = read(f'url,label\na,1\n{line}\nb,"x ""y"""\nc,2\n')
    assert reason in bad.reason
    assert [row["label"] for row in (first, *rest)] == ["1", 'x "y"', "2"]


def test_bytes_that_are_no_utf_8_cost_their_line() -> None:
    first, bad, last = read(b"url,label\na,1\ncaf\xe9,2\nb,3\n")
    assert (first["label"], bad.reason, last["label"]) == ("1", "line 3 is not UTF-8", "3")


def test_a_quote_in_the_middle_of_a_field_is_a_letter() -> None:
    assert read('url,size\na,5" wide\nb,"6"" wide"\n') == [
        {"url": "a", "size": '5" wide'},
        {"url": "b", "size": '6" wide'},
    ]
    assert read('url\tsaid\na\t"Hello" he said\n', delimiter="\t") == [{"url": "a", "said": "Hello he said"}]


def test_a_nul_is_a_letter_that_no_url_may_hold() -> None:
    assert read("url,label\na\0b,x\n") == [{"url": "a\0b", "label": "x"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id,label\n1,x\n", "no column 'url'"),
        (b"http://e.com/1\nhttp://e.com/2\n", "no column 'url'"),
        (b"url,label,label\n", "2 columns are called 'label'"),
        (b"\xff\xfeu\x00r\x00l\x00", "line 1 is not UTF-8"),
        (b"x" * (MAX_ROW + 1), "longer than"),
        (b'"url\nhttp://e.com/1\n', "never closed"),
        (b"\x1f\x8b\x08\x00", "not UTF-8"),
    ],
)
def test_what_is_no_table(data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read(data)


def test_a_column_that_is_asked_for_and_missing_is_named_with_those_there_are() -> None:
    with pytest.raises(ManifestError, match="no column 'image_ur'") as caught:
        read("image_url,label\n", ColumnOptions(url="image_ur"))
    assert "did you mean 'image_url'" in caught.value.hint
    assert "ingest.columns.url" in caught.value.hint
    with pytest.raises(ManifestError, match="no column 'klass'"):
        read("url,label\n", ColumnOptions(label="klass"))
    assert read("url,x,\na,1,2\n", ColumnOptions(label=None)) == [{"url": "a", "x": 1}]  # a column without a name


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"url,label\n", b"url"])
def test_nothing_or_a_header_alone_has_no_rows(data: bytes) -> None:
    assert read(data) == []


def test_a_list_of_urls() -> None:
    data = b"\xef\xbb\xbfhttp://e.com/1\r\n\n  http://e.com/2 \ncaf\xe9\n" + b"x" * (MAX_ROW + 1) + b"\nhttp://e.com/3"
    rows = list(txt_rows(Stream(io.BytesIO(data), "m.txt"), COLUMNS))
    assert [row["url"] for row in rows if isinstance(row, dict)] == [f"http://e.com/{i}" for i in (1, 2, 3)]
    assert faults(rows) == ["line 4 is not UTF-8", f"the row of line 5 is longer than {MAX_ROW} bytes"]


@given(st.binary(max_size=200) | st.lists(st.sampled_from(list('",\n\r\tax\0')), max_size=60).map("".join))
def test_any_bytes_are_rows_or_an_error_and_no_line_is_lost(data: bytes | str) -> None:
    raw = data.encode() if isinstance(data, str) else data
    with suppress(ManifestError):
        rows = read(b"url,label\n" + raw)
        ended = sum(1 + json.dumps(row).count("\\n") if isinstance(row, dict) else 1 for row in rows)
        assert ended >= sum(bool(line.strip(b"\r")) for line in raw.split(b"\n"))


@pytest.mark.parametrize("line", [b'a"b,"x\n', b'"""x\n', b'a,"\n', b'a,"b"c"\n', b'",\n'])
def test_quotes_that_are_never_closed_take_linear_time(line: bytes) -> None:
    began = time.process_time()
    rows = read(b"url,label\n" + line * 20_000)
    assert 10_000 <= len(rows) <= 20_000
    assert time.process_time() - began < 3


class Repeated:
    """A header, then `piece` again and again."""

    def __init__(self, piece: bytes, size: int) -> None:
        self.head, self.block, self.left = b"url\n", piece * (1 << 10), size

    def read(self, size: int, /) -> bytes:
        data = (self.head or self.block)[: min(size, self.left)]
        self.head = self.head[len(data) :]
        self.left -= len(data)
        return data


@pytest.mark.parametrize("letter", [b"", b"x" * 1_000])
@pytest.mark.parametrize("piece", [b'"%b', b"a%b", b",%b", b'",%b', b'a"%bb,"x\n'])
def test_memory_is_bounded(piece: bytes, letter: bytes) -> None:
    stream = Stream(Repeated(piece % letter, 5 * MAX_ROW if letter else MAX_ROW // 32), "m")
    tracemalloc.start()
    try:
        for _ in csv_rows(stream, "m", COLUMNS):
            pass
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_ROW
    finally:
        tracemalloc.stop()
