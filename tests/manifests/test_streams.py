"""Bytes of lists: unpacked as they come, with faults as ManifestError."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from startup_ray.errors import ManifestError
from startup_ray.manifests.streams import open_seekable, open_stream
from tests.image_server import ImageServer

TEXT = b"url\nhttp://e.com/1\n" * 999
PACKED = gzip.compress(TEXT, mtime=0)


def test_what_is_packed_is_unpacked_and_the_digest_is_of_the_packed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(PACKED)
    with open_stream(str(path), is_packed=True) as stream:
        assert stream.readline() == b"url\n"
        assert stream.digest() == f"sha256:{hashlib.sha256(PACKED).hexdigest()}"
    path.write_bytes(PACKED + PACKED)  # members follow each other, as of `cat a.gz b.gz`
    with open_stream(str(path), is_packed=True) as stream:
        assert stream.read() == TEXT + TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PACKED[:-9], "it ends too early"),
        (PACKED[:5], "it ends too early"),
        (TEXT, "Not a gzipped file"),
        (PACKED + b"more", "Not a gzipped file"),
        (PACKED[:-8] + bytes(8), "CRC"),
        (PACKED[:20] + b"\xff" * 20 + PACKED[40:], "Error -3"),
    ],
)
def test_damaged_packing_is_a_manifest_error(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(data)
    with open_stream(str(path), is_packed=True) as stream, pytest.raises(ManifestError, match=message) as caught:
        stream.read()
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_nothing_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").touch()
    with open_stream(str(tmp_path / "m.csv.gz"), is_packed=True) as stream:
        assert stream.read() == b""


def test_a_bomb_does_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet.gz"
    path.write_bytes(gzip.compress(bytes(30_000_000)))
    with pytest.raises(ManifestError, match="unpacks to more than"), open_seekable(str(path), is_packed=True):
        pass


def test_over_http_packed_or_to_be_read_at_any_place() -> None:
    with ImageServer() as server:
        server.bodies["m.csv.gz"] = PACKED
        server.bodies["m.parquet"] = TEXT
        with open_stream(server.url("/body/m.csv.gz"), is_packed=True) as stream:
            assert stream.read() == TEXT
        with open_seekable(server.url("/body/m.parquet")) as file:
            assert file.seek(4) == 4
            assert file.read(4) == b"http"
        with (
            pytest.raises(ManifestError, match="answered 404"),
            open_seekable(server.url("/status/m.parquet?code=404")),
        ):
            pass
