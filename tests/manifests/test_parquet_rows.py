"""Laws of reading Parquet lists: no image is read, memory is bounded, and what is odd is told."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions
from startup_ray.items import NoRow, OwnUrl
from startup_ray.manifests.parquet_rows import FEW, ParquetTable
from startup_ray.regions import MAX_BOXES

COLUMNS = ColumnOptions()
URL = "file:///data/x.parquet"
CLASSES = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}


def put(table: pa.Table, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


def open_table(file: Any, columns: ColumnOptions = COLUMNS) -> ParquetTable:
    return ParquetTable(file, URL, columns, where="x.parquet", changed=9)


def values(table: pa.Table, columns: ColumnOptions = COLUMNS, **options: Any) -> list[Any]:
    return [value for value, _ in open_table(put(table, **options), columns).rows()]


def images(*pairs: tuple[bytes | None, str | None] | None) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([pair and {"bytes": pair[0], "path": pair[1]} for pair in pairs], kind)


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    size = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.size += len(data)
        return data


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.binary()])
def test_a_list_of_urls_in_every_kind_of_text(kind: pa.DataType) -> None:
    urls = pa.array(["http://e.com/1", None, "http://e.com/1"], pa.string())
    texts = urls.dictionary_encode() if pa.types.is_dictionary(kind) else urls.cast(kind)
    assert values(pa.table({"url": texts, "n": [1, 2, None]})) == [
        {"url": "http://e.com/1", "n": 1},
        {"url": None, "n": 2},
        {"url": "http://e.com/1", "n": None},
    ]


def test_own_columns_are_texts_and_numbers_and_only_as_many_as_are_kept() -> None:
    plain = {"url": ["u"], "text": ["t"], "number": [1.5], "truth": [True], "none": pa.nulls(1)}
    odd = {"list": [[1]], "struct": [{"a": 1}], "raw": [b"x"], "time": pa.array([0], pa.timestamp("s"))}
    many = {f"z{i:03d}": [i] for i in range(99)}
    (row,) = values(pa.table(plain | odd | many))
    assert row.keys() - many.keys() == plain.keys()
    assert len(row) == 1 + 32


def test_boxes_are_lists_of_lists_of_numbers() -> None:
    """Of what is too long for them no more is read than tells it."""
    columns, urls = ColumnOptions(blur="faces"), {"url": ["u"]}
    lists = pa.list_(pa.list_(pa.float32()))
    short: list[Any] = [None, [], [[]], [None], [[0.0, 0.5, None, 1.0]]]
    for value in short:
        (row,) = values(pa.table(urls | {"faces": pa.array([value], lists)}), columns)
        assert row["faces"] == value
    (row,) = values(pa.table(urls | {"faces": pa.array([[[0.0] * 100] * 5000], lists)}), columns)
    assert row["faces"] == [[0.0] * 5] * (MAX_BOXES + 1)
    for odd in (pa.list_(pa.float32()), pa.list_(pa.list_(pa.string())), pa.struct([("left", pa.float32())])):
        with pytest.raises(ManifestError, match="no boxes"):
            values(pa.table(urls | {"faces": pa.array([None], odd)}), columns)
    (row,) = values(pa.table(urls | {"faces": pa.array([[]], pa.list_(pa.null()))}), columns)
    assert row["faces"] == []


def test_images_are_named_and_not_read() -> None:
    """In each row group rows count from 0; ids are places in the file, for paths may come more than once."""
    body = bytes(1_000_000)
    table = pa.table({"image": images((body, "a.png"), (body, None), (body, "a.png")), "label": ["x", "y", None]})
    file = Counting(put(table, row_group_size=2, compression="none").getvalue())
    found = open_table(file)
    rows = list(found.rows())
    assert found.holds_images
    assert file.size < 100_000
    assert [value["url"] for value, _ in rows] == [
        f"{URL}#group={group}&row={row}&changed=9" for group, row in [(0, 0), (0, 1), (1, 0)]
    ]
    assert all(isinstance(value["url"], OwnUrl) for value, _ in rows)
    assert [value["id"] for value, _ in rows] == ["x.parquet:0", "x.parquet:1", "x.parquet:2"]
    assert [value["label"] for value, _ in rows] == ["x", "y", None]


def test_plain_bytes_are_images_and_an_id_of_their_own_wins() -> None:
    (row,) = values(pa.table({"picture": [b"x"], "id": [7]}), ColumnOptions(image="picture"))
    assert row == {"id": 7, "url": f"{URL}#group=0&row=0&changed=9"}
    (row,) = values(pa.table({"image": [b"x"]}))
    assert row == {"id": "x.parquet:0", "url": f"{URL}#group=0&row=0&changed=9"}
    with pytest.raises(ManifestError, match="no column 'url'"):
        values(pa.table({"image": [b"x"]}), ColumnOptions(image=None))


def test_without_bytes_a_path_that_is_a_url_is_the_url() -> None:
    """Any other row without bytes is told as unreadable when its image is due."""
    pairs = [(b"x", "a.png"), (None, None), (None, "http://e.com/b"), (b"x", "http://e.com/c"), (None, None), None]
    rows = values(pa.table({"image": images(*(pairs * FEW))}), row_group_size=FEW - 1)
    kinds = [type(row.get("url")) for row in rows]
    assert kinds[: len(pairs)] == [OwnUrl, OwnUrl, str, OwnUrl, type(None), type(None)]
    assert kinds.count(str) == FEW
    assert {row["url"] for row in rows if type(row.get("url")) is str} == {"http://e.com/b"}


def test_no_image_is_held_to_see_whether_it_is_there() -> None:
    """Though all of a row group are looked at, one after the other."""
    table = pa.table({"image": images(*[(bytes([i]) * 500_000, "http://e.com/c") for i in range(60)])})
    file = put(table, compression="none", data_page_size=1, write_batch_size=1)  # a page an image
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in open_table(file).rows()]
    assert len(held) == 60
    assert max(held) < 22_000_000


def test_classes_of_hugging_face_are_names() -> None:
    table = pa.table({"url": list("abcd"), "label": [1, 0, -1, 2]})
    *rows, bad = values(table.replace_schema_metadata({"huggingface": json.dumps(CLASSES)}))
    assert [row["label"] for row in rows] == ["dog", "cat", None]
    assert bad == NoRow("label 2 is none of 2 classes")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"x"',
        "{}",
        '{"info": 3}',
        '{"info": {"features": {"label": {"_type": "Value"}}}}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": [3]}}}}',
        "[" * 100_000,
    ],
)
def test_a_schema_that_declares_no_classes_leaves_numbers(text: str) -> None:
    table = pa.table({"url": ["a"], "label": [1]}).replace_schema_metadata({"huggingface": text})
    assert values(table) == [{"url": "a", "label": 1}]


def test_bytes_that_are_no_text_become_what_no_item_may_hold() -> None:
    column = pa.array([b"caf\xe9", b"a"]).view(pa.string())
    bad, good = values(pa.table({"url": column}))
    assert good == {"url": "a"}
    with pytest.raises(UnicodeEncodeError):
        bad["url"].encode()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"label": ["x"]}), "no column 'url'"),
        (pa.table({"url": [["a"]]}), "column 'url' holds list"),
        (pa.table({"url": ["a"], "label": [{"x": 1}]}), "column 'label' holds struct"),
        (pa.table([["a"], ["b"]], names=["url", "url"]), "2 columns are called 'url'"),
        (pa.table({}), "no column 'url'"),
    ],
)
def test_a_table_of_other_columns(table: pa.Table, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        values(table)


def test_a_column_of_images_that_is_called_otherwise_is_told_of() -> None:
    table = pa.table({"img": images((b"x", "a.png"))})
    with pytest.raises(ManifestError, match="no column 'url'") as caught:
        values(table)
    assert "or that of the images with `ingest.columns.image`" in caught.value.hint
    with pytest.raises(ManifestError, match="no column 'imgg'") as caught:
        values(table, ColumnOptions(image="imgg"))
    assert "did you mean 'img'?" in caught.value.hint
    assert caught.value.hint.endswith("`ingest.columns.image: NAME`")


def test_what_is_no_parquet_or_damaged_is_a_manifest_error() -> None:
    whole = put(pa.table({"url": [f"http://e.com/{i}" for i in range(3_000)]}), compression="none").getvalue()
    for data in (b"", b"PAR1", b"PAR1\0\0\0\0PAR1", b"url\nx\n", whole[:-9]):
        with pytest.raises(ManifestError, match="cannot read this Parquet file"):
            open_table(io.BytesIO(data))
    damaged = bytearray(whole)
    damaged[4:40] = b"\xff" * 36
    with pytest.raises(ManifestError, match="cannot read this Parquet file"):
        list(open_table(io.BytesIO(damaged)).rows())


@pytest.mark.ray  # it takes seconds
def test_a_text_of_a_megabyte_in_every_row(tmp_path: Path) -> None:
    """A file of some kilobytes that means gigabytes."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 1_000_000]))
    table = pa.table({"url": ["http://e.com/a"] * 20_000, "long": long})
    pq.write_table(table, tmp_path / "m.parquet", store_schema=False)
    assert (tmp_path / "m.parquet").stat().st_size < 10_000_000
    script = (
        "import resource, sys\n"
        "from startup_ray.manifest import open_manifest\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (700_000_000, 700_000_000))\n"
        "with open_manifest(sys.argv[1]) as manifest:\n"
        "    print(sum(1 for row in manifest.rows()))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "20000\n", done.stderr
