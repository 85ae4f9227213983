"""Folders as manifests: which are lists and which are images, and what their digests tell apart."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions, IngestOptions
from startup_ray.items import BadRow, Item
from startup_ray.manifest import manifest_digest, open_manifest, require_manifest
from startup_ray.sources import place_of, sources_of
from tests.image_server import ImageServer
from tests.s3 import KEYS, s3_server

COLUMNS = ColumnOptions()


def put(path: Path, data: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read(location: object, columns: ColumnOptions = COLUMNS) -> list[Item | BadRow]:
    with open_manifest(str(location), columns) as manifest:
        rows = list(manifest.rows())
        digest = manifest.digest()
    assert digest == manifest_digest(str(location), columns)
    assert [row.position for row in rows] == list(range(len(rows)))
    return rows


def facts(rows: list[Item | BadRow]) -> list[tuple[str, str | None, str | None]]:
    return [(row.id, row.label, row.split) for row in rows if isinstance(row, Item)]


def test_a_list_that_cannot_have_boxes_has_no_items_where_they_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "cats" / "1.jpg")
    for location in (tmp_path, put(tmp_path.with_suffix(".txt"), "http://e.com/1.jpg")):
        (row,) = read(location, ColumnOptions(blur="faces"))
        assert isinstance(row, BadRow)
        assert row.reason == "faces is missing; null says that nothing is to be blurred"


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("cats/1.jpg", "cats/old/2", "dogs/train/3.png", "4.jpg", ".git/5.jpg", "README.txt", "cats/1.json"):
        put(tmp_path / name)
    put(tmp_path.with_name("secret.png"))
    (tmp_path / "dogs" / "out.png").symlink_to("../../secret.png")
    rows = read(tmp_path)
    assert facts(rows) == [
        ("4.jpg", None, None),
        ("cats/1.jpg", "cats", None),
        ("cats/old/2", "cats", None),
        ("dogs/train/3.png", "dogs", None),
    ]
    assert [(row.id, row.reason) for row in rows if isinstance(row, BadRow)] == [
        ("dogs/out.png", "a link that leaves the folder")
    ]
    options = IngestOptions(manifest=str(tmp_path))
    sources = sources_of(options, str(tmp_path))
    for row in rows:
        if isinstance(row, Item):  # every item may be read where it says to be
            assert sources.root_of(place_of(row.url)) is not None
            assert place_of(row.url).name == str(tmp_path / row.id)


def test_folders_of_splits_above_those_of_classes(tmp_path: Path) -> None:
    for name in ("train/cats/1.jpg", "Validation/cats/2.jpg", "test/3.jpg", "4.jpg"):
        put(tmp_path / name)
    assert facts(read(tmp_path)) == [
        ("4.jpg", None, None),
        ("Validation/cats/2.jpg", "cats", "val"),
        ("test/3.jpg", None, "test"),
        ("train/cats/1.jpg", "cats", "train"),
    ]
    assert {row.split for row in read(tmp_path, ColumnOptions(split=None)) if isinstance(row, Item)} == {None}
    put(tmp_path / "people" / "5.jpg")  # so `train` and `test` are classes, such as of vehicles and of exams
    assert [row.split for row in read(tmp_path) if isinstance(row, Item)] == [None] * 5


def test_a_mapping_of_columns_says_nothing_of_a_folder_of_images(tmp_path: Path) -> None:
    put(tmp_path / "cats" / "1.jpg")
    assert facts(read(tmp_path, ColumnOptions(id="key", url="link", label="class"))) == [("cats/1.jpg", "cats", None)]


def test_the_digest_of_a_folder_tells_name_size_and_time(tmp_path: Path) -> None:
    paths = [put(tmp_path / name) for name in ("cats/1.jpg", "cats/2.jpg")]
    for path in paths:
        os.utime(path, ns=(0, 10**18))
    before, (first, _) = manifest_digest(str(tmp_path)), read(tmp_path)

    def changed(name: str, text: str, time_ns: int) -> bool:
        os.utime(put(tmp_path / name, text), ns=(0, time_ns))
        found = manifest_digest(str(tmp_path))
        put(paths[0])
        os.utime(paths[0], ns=(0, 10**18))
        return found != before

    assert not changed("cats/1.jpg", "x", 10**18)
    assert changed("cats/1.jpg", "x", 10**18 + 1)
    assert changed("cats/1.jpg", "xy", 10**18)
    assert not changed("notes.txt", "x", 10**18)
    assert changed("cats/3.jpg", "x", 10**18)
    os.utime(paths[0], ns=(0, 5))
    assert read(tmp_path)[0].url != first.url  # another state is another item, so that it is read anew


def test_a_folder_of_lists_is_one_manifest(tmp_path: Path) -> None:
    put(tmp_path / "b.csv", "url,label\nhttp://e.com/2,x\n")
    put(tmp_path / "a.csv.gz", gzip.compress(b"label,url\ny,http://e.com/1\n"))
    put(tmp_path / "c.CSV", "url\n")
    put(tmp_path / "_SUCCESS")
    assert [(row.url, row.label) for row in read(tmp_path) if isinstance(row, Item)] == [
        ("http://e.com/1", "y"),
        ("http://e.com/2", "x"),
    ]
    put(tmp_path / "d.jsonl", "{}")
    with pytest.raises(ManifestError, match="lists of several forms: csv, jsonl"):
        require_manifest(str(tmp_path))


def test_a_list_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "secret.txt", "password")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").symlink_to("../secret.txt")
    with pytest.raises(ManifestError, match="a link that leaves the folder"):
        require_manifest(str(tmp_path / "lists"))


def test_a_pipe_among_lists_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(ManifestError, match="not a regular file"):
        require_manifest(str(tmp_path))


def test_names_of_lists_that_are_splits(tmp_path: Path) -> None:
    """As Hugging Face names the files of a dataset; a split of a row's own wins."""
    for name, split in [("train-00000-of-00001", "test"), ("validation", ""), ("test_b", "")]:
        put(tmp_path / f"{name}.csv", f"id,url,split\n{name}1,http://e.com/1,{split}\n{name}2,http://e.com/2,\n")
    assert [row.split for row in read(tmp_path) if isinstance(row, Item)] == [
        "test",
        "test",
        "test",
        "train",
        "val",
        "val",
    ]
    put(tmp_path / "trainings.csv", "url\nhttp://e.com/1\n")
    assert {row.split for row in read(tmp_path) if isinstance(row, Item)} == {"test", None}


def images(path: Path, *names: str | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": name} for name in names]}), path)
    return path


def test_images_in_parquet_files_are_named_by_file_group_and_row(tmp_path: Path) -> None:
    images(tmp_path / "data" / "test-0.parquet", "a.png", None)
    images(tmp_path / "data" / "train-0.parquet", "b.png")
    rows = read(tmp_path / "data")
    assert facts(rows) == [
        ("test-0.parquet:0", None, "test"),
        ("test-0.parquet:1", None, "test"),
        ("train-0.parquet:0", None, "train"),
    ]
    place = place_of(rows[1].url)
    assert (place.name, place.group, place.row) == (str(tmp_path / "data" / "test-0.parquet"), 0, 1)
    single = read(tmp_path / "data" / "test-0.parquet")
    assert [(row.url, row.split) for row in single if isinstance(row, Item)] == [(row.url, None) for row in rows[:2]]


def test_the_digest_of_a_parquet_file_with_images_needs_no_images(tmp_path: Path) -> None:
    path = images(tmp_path / "a.parquet", "a.png")
    os.utime(path, ns=(0, 10**18))
    before = manifest_digest(str(path))
    os.utime(path, ns=(0, 10**18 + 1))
    assert manifest_digest(str(path)) != before
    pq.write_table(pa.table({"url": ["http://e.com/1"]}), path)
    before = manifest_digest(str(path))
    os.utime(path, ns=(0, 5))
    assert manifest_digest(str(path)) == before  # of a list of URLs the bytes count


def test_over_http_a_parquet_file_may_hold_urls_but_no_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://e.com/1"]}), tmp_path / "a.parquet")
    with ImageServer() as server:
        server.bodies["a.parquet"] = (tmp_path / "a.parquet").read_bytes()
        server.bodies["b.parquet"] = images(tmp_path / "b.parquet", "b.png").read_bytes()
        assert [row.url for row in read(server.url("/body/a.parquet"))] == ["http://e.com/1"]
        with pytest.raises(ManifestError, match="holds images") as caught:
            read(server.url("/body/b.parquet"))
        assert "download" in caught.value.hint
    packed = put(tmp_path / "b.parquet.gz", gzip.compress((tmp_path / "b.parquet").read_bytes()))
    with pytest.raises(ManifestError, match="holds images") as caught:
        read(packed)
    assert "unpack" in caught.value.hint


def test_every_form_of_the_same_rows_reads_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"key": "a", "link": "http://e.com/1", "class": "x", "part": "val", "md5": "0" * 32, "year": 1999, "by": "me"},
        {"key": "b", "link": "http://e.com/2", "class": None, "part": None, "md5": None, "year": 2.5, "by": None},
    ]
    names = list(rows[0])
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        lines = [[str(value) if value is not None else "" for value in row.values()] for row in rows]
        put(tmp_path / f"m{ending}", "\n".join(delimiter.join(line) for line in [names, *lines]))
    put(tmp_path / "m.json", json.dumps({"items": rows}))
    put(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)))
    pq.write_table(
        pa.Table.from_pylist([row | {"year": float(str(row["year"]))} for row in rows]), tmp_path / "m.parquet"
    )
    for path in list(tmp_path.iterdir()):
        put(tmp_path / f"{path.name}.gz", gzip.compress(path.read_bytes()))
    columns = ColumnOptions(id="key", url="link", label="class", split="part")
    first, second = read(tmp_path / "m.json", columns)
    assert first == Item(
        position=0,
        id="a",
        url="http://e.com/1",
        label="x",
        split="val",
        own='{"by": "me", "year": 1999}',
        hashes=f"md5:{'0' * 32}",
    )
    for path in sorted(tmp_path.iterdir()):
        found = read(path, columns)
        assert [(row.id, row.url) for row in found] == [("a", "http://e.com/1"), ("b", "http://e.com/2")], path
        assert [json.loads(row.own or "{}").get("year") for row in found if isinstance(row, Item)] == [1999, 2.5]
        if "parquet" not in path.name:
            assert found == [first, second]


@pytest.mark.ray  # the server takes seconds to start
def test_on_an_object_store_as_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    put(tmp_path / "photos" / "cats" / "1.jpg")
    put(tmp_path / "photos" / "2.jpg")
    put(tmp_path / "lists" / "a.csv", "url\nhttp://e.com/1\n")
    put(tmp_path / "lists" / "b.csv.gz", gzip.compress(b"url\nhttp://e.com/2\n"))
    images(tmp_path / "data" / "x.parquet", "a.png")
    with s3_server() as server:
        folder = server.folder("root")
        for path in tmp_path.rglob("*.*"):
            folder.put_whole(path.relative_to(tmp_path).as_posix(), path.read_bytes())
        for name in ("photos", "lists", "data", "data/x.parquet", "lists/a.csv", "lists/b.csv.gz"):
            here, there = read(tmp_path / name), read(folder.path(name))
            assert facts(there) == facts(here)
            assert [place_of(row.url).name for row in there if "#" in row.url] == [
                place_of(row.url).name.replace(str(tmp_path), "s3://bucket/root") for row in here if "#" in row.url
            ]
        for name in ("none", "none.csv", "none.parquet"):
            with pytest.raises(ManifestError):
                require_manifest(folder.path(name))
