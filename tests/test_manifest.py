from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions, IngestOptions
from startup_ray.items import MAX_ID, MAX_URL, BadRow, Item, OwnUrl, parse_row
from startup_ray.manifest import manifest_digest, open_manifest
from startup_ray.manifests.rows import MAX_ROW
from startup_ray.sources import sources_of
from tests.image_server import ImageServer

GOOD = {"id": "a", "url": "http://example.com/a.png"}
ROWS = [GOOD, {"id": 7, "url": "https://example.com/b", "label": 3, "split": "test"}, "no object"]


def read(path: Path, text: str | bytes) -> list[Item | BadRow]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with open_manifest(str(path)) as manifest:
        return list(manifest.rows())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", json.dumps({"version": 1, "items": ROWS, "more": [1]})),
        ("m.json", " \n" + json.dumps(ROWS)),
        ("m.JSON", "\ufeff" + json.dumps({"items": ROWS}, indent=2)),
        ("m.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("m.ndjson", "\ufeff" + "\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n"),
    ],
)
def test_every_form_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    first, second, third = read(tmp_path / name, text)
    assert first == Item(position=0, id="a", url="http://example.com/a.png")
    assert second == Item(position=1, id="7", url="https://example.com/b", label="3", split="test")
    assert third == BadRow(position=2, id="", url="", status="bad_item", reason="not an object")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"id": None}, "bad_item"),
        ({"id": ""}, "bad_item"),
        ({"id": " "}, "bad_item"),
        ({"id": 1.5}, "bad_item"),
        ({"id": True}, "bad_item"),
        ({"id": ["a"]}, "bad_item"),
        ({"id": "\ud800"}, "bad_item"),
        ({"id": "x" * (MAX_ID + 1)}, "bad_item"),
        ({"label": {}}, "bad_item"),
        ({"label": False}, "bad_item"),
        ({"label": 0.5}, "bad_item"),
        ({"split": "holdout"}, "bad_item"),
        ({"split": []}, "bad_item"),
        ({"url": "http://example.com/" + "x" * MAX_URL}, "bad_item"),
        ({"url": None}, "bad_url"),
        ({"url": 5}, "bad_url"),
        ({"url": "example.com/a.png"}, "bad_url"),
        ({"url": "http://"}, "bad_url"),
        ({"url": "http:///a.png"}, "bad_url"),
        ({"url": "http://[::1/a"}, "bad_url"),
        ({"url": "http://example.com:99999/"}, "bad_url"),
        ({"url": "http://example.com/\r\nHost: x"}, "bad_url"),
        ({"url": "file:///etc/passwd"}, "blocked_scheme"),
        ({"url": "ftp://example.com/a"}, "blocked_scheme"),
        ({"url": "data:image/png;base64,AAAA"}, "blocked_scheme"),
        ({"url": "gopher://127.0.0.1:70/"}, "blocked_scheme"),
    ],
)
def test_a_bad_row_becomes_a_row_of_the_ledger(change: dict[str, Any], status: str) -> None:
    row = parse_row(GOOD | change, 3)
    assert isinstance(row, BadRow)
    assert (row.position, row.status) == (3, status)
    assert row.reason


@pytest.mark.parametrize(
    "change",
    [{"id": "../../etc/passwd"}, {"id": 0}, {"label": "ß"}, {"label": None, "split": None}, {"url": "HTTP://a/ b?c=ü"}],
)
def test_unusual_rows_that_are_items(change: dict[str, Any]) -> None:
    assert isinstance(parse_row(GOOD | change, 0), Item)


def test_a_bad_row_keeps_its_usable_id_and_hides_secrets() -> None:
    row = parse_row({"id": 5, "url": "s3://user:pass@bucket/a?token=abc"}, 0)
    assert isinstance(row, BadRow)
    assert (row.id, row.url) == ("5", "s3://bucket/a?token=REDACTED")


@pytest.mark.parametrize("url", ["https://me:s3cret@a\u2100b.com/1", "https://me:s3cret/@example.com:80/1"])
def test_why_a_url_cannot_be_parsed_tells_no_secret(url: str) -> None:
    row = parse_row({"url": url}, 0)
    assert isinstance(row, BadRow)
    assert row.status == "bad_url"
    assert "s3cret" not in row.reason
    with pytest.raises(ManifestError) as caught, open_manifest("https://me:s3cret@a\u2100b.com/m.csv"):
        pass
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message", "where"),
    [
        ("m.json", '{"items": [\n{"id" 1},\n{"id": 2}\n]}', "not JSON: Expecting ':'", ":2"),
        ("m.json", '{"items": [\n{"id": 1}\n{"id": 2}\n]}', "not JSON: expected , or ]", ":3"),
        ("m.json", '[{"id": 1},\n]', "expected a value", ":2"),
        ("m.json", '[{"id": 1}', "it ends too early", ":1"),
        ("m.json", '[{"id": 1},\n', "it ends too early", ":2"),
        ("m.json", '[{"id": "1}]', "it ends too early", ":1"),
        ("m.json", '["1\\', "it ends too early", ":1"),
        ("m.json", '[{"id": 1}]\n[]', "something follows", ":2"),
        ("m.json", "{1: []}", "expected a key", ":1"),
        ("m.json", '{"a" []}', "expected : after", ":1"),
        ("m.json", '{"a": []', "it ends too early", ":1"),
        ("m.json", b'["\xff"]', "not UTF-8", ":1"),
        ("m.json", "<html>", "neither", ""),
        ("m.json", "", "neither", ""),
        ("m.json", '{"rows": []}', "no items", ""),
        ("m.json", '{"items": {"a": 1}}', "no items", ""),
        ("m.json", "[]", "no items", ""),
        ("m.jsonl", "\n\n", "no items", ""),
        ("m.jsonl", "id,url\n1,2", "not JSON", ":1"),
        ("m.xml", "[]", "unknown kind", ""),
        ("m.json", "{}", "no items", ""),
        ("m.json", '{"items": []}', "no items", ""),
        ("m.json", '{"items": [{"id": "1", "url": "http://e.com/a"}, {"id": "2", "ur', "it ends too early", ":1"),
        ("m.json", "id,url\n1,http://e.com/a\n", "neither", ""),
        ("m.json", gzip.compress(b"[]", mtime=0), "neither", ""),
        ("m.jsonl", gzip.compress(b"{}", mtime=0), "not UTF-8", ":1"),
        ("m.jsonl", '{"id": "1"}'.encode("utf-16"), "not UTF-8", ":1"),
        ("m.jsonl", '[\n{"id": "1"}\n]', "not JSON", ":1"),
        ("m.jsonl", "", "no items", ""),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path: Path, name: str, text: str | bytes, message: str, where: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read(tmp_path / name, text)
    assert caught.value.where.endswith(f"{name}{where}")
    assert caught.value.hint


def test_a_column_of_urls_that_no_row_has(tmp_path: Path) -> None:
    found = read(tmp_path / "m.json", json.dumps([{"id": str(i)} for i in range(3)]))
    assert [row.status for row in found if isinstance(row, BadRow)] == ["bad_url"] * 3
    assert {row.reason for row in found if isinstance(row, BadRow)} == {"url is missing"}


def test_without_a_column_of_ids_they_come_from_the_urls(tmp_path: Path) -> None:
    """And stay whatever port, password or signature a URL has today."""
    urls = ["http://e.com/a", "http://e.com:81/a", "http://me:pw@e.com/a", "http://e.com/b"]
    first, port, user, other = read(tmp_path / "m.jsonl", "\n".join(json.dumps({"url": url}) for url in urls))
    assert first.id == port.id == user.id == hashlib.sha256(b"http://e.com/a").hexdigest()[:16]
    assert other.id not in ("", first.id)
    (signed, anew, bad) = read(
        tmp_path / "m.json",
        json.dumps([{"url": "http://e.com/a?sig=1"}, {"url": "http://e.com/a?sig=2"}, {"label": "x"}]),
    )
    assert signed.id == anew.id
    assert (bad.id, type(bad)) == ("m.json:2", BadRow)


def test_some_rows_without_a_label_and_an_id_that_comes_twice(tmp_path: Path) -> None:
    """Neither is a fault of a row: the model skips the first, and the seal settles the second."""
    rows = [GOOD | {"label": "cat"}, GOOD, GOOD | {"label": None}, {"id": "../../etc/passwd", "url": GOOD["url"]}]
    found = read(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)))
    assert [row.label for row in found if isinstance(row, Item)] == ["cat", None, None, None]
    assert [row.id for row in found] == ["a", "a", "a", "../../etc/passwd"]


@pytest.mark.parametrize("form", ["{}", "[{}]", '{{"items": [{}]}}'])
def test_one_row_that_is_not_utf_8(tmp_path: Path, form: str) -> None:
    good, bad = json.dumps(GOOD).encode(), '{"id": "caf\xe9", "url": "http://e.com/a"}'.encode("latin-1")
    between = b",\n" if "[" in form else b"\n"
    head, tail = form.format("\n\n").encode().split(b"\n\n")
    name = "m.json" if "[" in form else "m.jsonl"
    first, broken, last = read(tmp_path / name, head + between.join([good, bad, good]) + tail)
    assert isinstance(broken, BadRow)
    assert (broken.status, broken.reason) == ("bad_item", "line 2 is not JSON")
    assert isinstance(first, Item)
    assert isinstance(last, Item)


def test_a_manifest_that_ends_in_a_row_keeps_the_rows_before(tmp_path: Path) -> None:
    first, last = read(tmp_path / "m.jsonl", json.dumps(GOOD) + '\n{"id": "b", "url": "http')
    assert isinstance(first, Item)
    assert isinstance(last, BadRow)


@pytest.mark.ray  # it takes seconds
@pytest.mark.parametrize(("name", "head", "tail"), [("m.jsonl", b'%b\n"', b'"\n%b'), ("m.json", b"[%b,\n", b",\n%b]")])
def test_a_line_of_two_gigabytes(tmp_path: Path, name: str, head: bytes, tail: bytes) -> None:
    """One bad row, read in little memory; most of the file is a hole."""
    good = json.dumps(GOOD).encode()
    with open(tmp_path / name, "wb") as stream:
        stream.write(head % good)
        stream.seek(2 * 1024**3, 1)
        stream.write(tail % good)
    script = (
        "import resource, sys\n"
        "from startup_ray.manifest import open_manifest\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))\n"
        "with open_manifest(sys.argv[1]) as manifest:\n"
        "    print([getattr(row, 'reason', row.id) for row in manifest.rows()])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == f"['a', 'the row of line 2 is longer than {MAX_ROW} bytes', 'a']\n", done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.touch(mode=0o000)
    with pytest.raises(ManifestError, match="Permission denied"):
        manifest_digest(str(path))


def test_an_empty_folder_is_a_manifest_without_items(tmp_path: Path) -> None:
    (tmp_path / "m.json").mkdir()
    with open_manifest(str(tmp_path / "m.json")) as manifest, pytest.raises(ManifestError, match="no items") as caught:
        list(manifest.rows())
    assert caught.value.hint


def test_a_file_that_breaks_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.json").symlink_to("/proc/self/mem")  # its first bytes are an input/output error
    with pytest.raises(ManifestError, match="cannot read the manifest"):
        manifest_digest(str(tmp_path / "m.json"))


@pytest.mark.parametrize("location", ["a\0b.json", "\ud800.json", "http://[::1/m.json"])
def test_no_path_and_no_url(location: str) -> None:
    with pytest.raises(ManifestError):
        manifest_digest(location)


def test_no_such_file_or_scheme(tmp_path: Path) -> None:
    for location in (str(tmp_path / "none.json"), "ftp://example.com/m.json", f"{tmp_path}.json"):
        with pytest.raises(ManifestError), open_manifest(location):
            pass


def test_digest_is_of_the_raw_bytes_whoever_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"items": ROWS}) + " " * 100_000)
    with open_manifest(str(path)) as manifest:
        list(manifest.rows())
        assert manifest.digest() == manifest_digest(str(path))
    before = manifest_digest(str(path))
    path.write_text(json.dumps({"items": ROWS}))
    assert manifest_digest(str(path)) != before


def test_a_sample_has_a_constant_digest() -> None:
    assert manifest_digest("sample:digits") == manifest_digest("sample:digits")
    with pytest.raises(ManifestError, match="no such sample"):
        manifest_digest("sample:cats")


def test_over_http() -> None:
    with ImageServer() as server:
        server.bodies["m.json"] = json.dumps({"items": ROWS}).encode()
        with open_manifest(server.url("/body/m.json?token=x")) as manifest:
            assert len(list(manifest.rows())) == 3
        for path in ("/status/m.json?code=404", "/truncated/m.json", "/cut/m.json", "/reset/m.json"):
            with pytest.raises(ManifestError) as caught, open_manifest(server.url(path)) as manifest:
                list(manifest.rows())
            assert "?" not in caught.value.message
    with pytest.raises(ManifestError, match="ConnectionError"), open_manifest(server.url("/body/m.json")):
        pass


def test_other_columns_are_kept_within_limits(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "id": "a",
        "url": "http://example.com/a.png",
        "camera": "old",
        "year": 1999,
        "sharp": True,
        "zoom": 1.5,
        "page": "https://user:hunter2@example.com/?token=hunter3",
        "nested": {"a": 1},
        "none": None,
        "empty": "",
        "half": "\ud800",
        "long": "x" * 257,
        "n" * 65: 1,
    }
    (item, plain, many) = read(
        tmp_path / "m.jsonl",
        "\n".join(map(json.dumps, (row, {"id": "b", "url": row["url"]}, row | {f"c{i:03d}": i for i in range(99)}))),
    )
    assert isinstance(item, Item)
    assert item.own is not None
    assert json.loads(item.own) == {
        "camera": "old",
        "page": "https://example.com/?token=REDACTED",
        "sharp": True,
        "year": 1999,
        "zoom": 1.5,
    }
    assert isinstance(plain, Item)
    assert plain.own is None
    assert isinstance(many, Item)
    assert many.own is not None
    assert len(json.loads(many.own)) <= 32


HEX = {"sha256": "ab" * 32, "sha512": "cd" * 64, "md5": "ef" * 16}


def test_hashes_that_bodies_must_have() -> None:
    row = parse_row(GOOD | HEX | {"sha256": HEX["sha256"].upper()}, 0)
    assert isinstance(row, Item)
    assert row.hashes == " ".join(f"{kind}:{digits}" for kind, digits in HEX.items())
    assert row.own is None
    (alone,) = [parse_row(GOOD | {"sha256": "v1", "md5": ""}, 0, columns=ColumnOptions(sha256=None))]
    assert isinstance(alone, Item)
    assert (alone.hashes, alone.own) == (None, '{"sha256": "v1"}')
    for bad in ("v1", "g" * 64, "a" * 63, "a" * 64 + "\n", 7, ["a" * 64]):
        row = parse_row(GOOD | {"sha256": bad}, 0)
        assert isinstance(row, BadRow)
        assert row.reason == "sha256 is not 64 hex digits"


def test_an_image_in_the_same_file_needs_no_hash() -> None:
    row = parse_row({"id": "a", "url": OwnUrl("file:///x.parquet#group=0&row=0&changed=1")} | HEX, 0)
    assert isinstance(row, Item)
    assert (row.hashes, row.own) == (None, None)


def test_columns_by_other_names(tmp_path: Path) -> None:
    columns = ColumnOptions(id="key", url="link", label="class", split="part")
    row = {"key": 7, "link": "http://e.com/1", "class": "cat", "part": "val", "label": "mine", "url": "https://e.com/2"}
    found = parse_row(row, 0, columns=columns)
    assert found == Item(
        position=0,
        id="7",
        url="http://e.com/1",
        label="cat",
        split="val",
        own='{"label": "mine", "url": "https://e.com/2"}',
    )
    reasons = {
        "key": "key is missing",
        "link": "link is missing",
        "class": "class is neither",
        "part": "part is none of",
    }
    for name, reason in reasons.items():
        bad = parse_row(row | {name: None if name in ("key", "link") else 0.5}, 0, columns=columns)
        assert isinstance(bad, BadRow)
        assert reason in bad.reason


def test_what_is_no_url_of_http_is_judged_as_the_job_allows(tmp_path: Path) -> None:
    options = IngestOptions.model_validate(
        {"manifest": "m.csv", "fetch": {"allow_files": [str(tmp_path)], "allow_storage": ["s3://bucket/photos"]}}
    )
    judge = sources_of(options, str(tmp_path / "m.csv")).judge

    def url(text: str) -> str:
        row = parse_row({"url": text}, 0, judge=judge)
        return row.url if isinstance(row, Item) else row.status

    assert url("cats/1 2.jpg") == f"{tmp_path.as_uri()}/cats/1%202.jpg"
    assert url("s3://bucket/photos/1.jpg") == "s3://bucket/photos/1.jpg"
    assert url("s3://bucket/secrets/1.jpg") == url("/etc/passwd") == url("../1.jpg") == "blocked_scheme"
    assert url("http://[::1/a") == url("a\0b") == url(" a") == "bad_url"
    assert parse_row({"url": "cats/1.jpg"}, 0, judge=judge).id == parse_row({"url": "cats/1.jpg"}, 9, judge=judge).id


def test_no_list_can_hold_a_url_of_a_readers_own(tmp_path: Path) -> None:
    text = f"{tmp_path.as_uri()}/m.jsonl#group=0&row=0&changed=1"
    (row,) = read(tmp_path / "m.jsonl", json.dumps({"id": "a", "url": text}))
    assert isinstance(row, BadRow)
    assert row.status == "blocked_scheme"


def test_numbers_that_json_has_not_are_no_columns() -> None:
    row = parse_row(GOOD | {"a": float("nan"), "b": float("inf"), "c": 1.5}, 0)
    assert isinstance(row, Item)
    assert row.own == '{"c": 1.5}'
