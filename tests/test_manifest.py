from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import ManifestError
from startup_ray.items import MAX_ID, MAX_URL, BadRow, Item, parse_row
from startup_ray.manifest import manifest_digest, open_manifest
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
        ("m.txt", "[]", "unknown kind", ""),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path: Path, name: str, text: str | bytes, message: str, where: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read(tmp_path / name, text)
    assert caught.value.where.endswith(f"{name}{where}")
    assert caught.value.hint


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
