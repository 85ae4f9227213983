from __future__ import annotations

import os
from pathlib import Path

import pytest

from startup_ray.errors import StorageError
from startup_ray.storage import Folder, open_folder


def test_a_file_is_read_back_and_replaced_whole(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path)) / "a"
    folder.put_whole("b/c.txt", b"one")
    folder.put_whole("b/c.txt", b"two")
    assert folder.read("b/c.txt") == b"two"
    assert folder.list("b") == ["c.txt"]
    assert folder.exists("b/c.txt")


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    (tmp_path / "target").mkdir()
    with pytest.raises(StorageError, match="cannot write here"):
        folder.put_whole("target", b"x")
    assert os.listdir(tmp_path) == ["target"]


def test_what_is_still_being_written_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-123").write_bytes(b"part")
    assert Folder(str(tmp_path)).list() == []


def test_nothing_there(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "none"))
    assert not folder.exists()
    assert folder.list() == []
    folder.delete("x")
    with pytest.raises(FileNotFoundError):
        folder.read("x")


def test_a_folder_is_deleted_with_all_in_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.put_whole("a/b", b"")
    folder.delete("a")
    assert folder.list() == []


def test_storage_that_cannot_be_written_names_place_and_way_out() -> None:
    with pytest.raises(StorageError) as caught:
        open_folder("/proc/nothing").put_whole("x", b"")
    assert caught.value.where == "/proc/nothing/x"
    assert "storage" in caught.value.hint


def test_an_unknown_scheme_is_told_at_once() -> None:
    with pytest.raises(StorageError, match="cannot use here"):
        open_folder("gopher://x/y")


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    assert open_folder(f"file://{tmp_path}/a/") == open_folder(f"{tmp_path}/a")


def test_an_object_store_reads_and_writes_like_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # which an object store would not need
    folder = Folder(f"file://{tmp_path}")  # not by `open_folder`, so that the code for object stores serves it
    folder.put_whole("a/x", b"1")
    assert folder.read("a/x") == b"1"
    assert folder.list("a") == ["x"]
    folder.delete("a")
    assert not folder.exists("a")
    with pytest.raises(FileNotFoundError):
        folder.read("a/x")


S3 = "s3://bucket/a?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"


def test_a_query_stays_at_the_end() -> None:
    folder = open_folder(S3.replace("/a?", "/a/?"))
    assert folder.uri == S3
    assert (folder / "b").uri == folder.path("b") == S3.replace("/a?", "/a/b?")
    assert (folder / "b").name == "b"
    assert (folder / "b").parent == folder
    assert folder.filesystem()[1] == "bucket/a"
    assert (folder / "b").filesystem()[0] == folder.filesystem()[0]


def test_a_local_path_may_hold_a_question_mark(tmp_path: Path) -> None:
    folder = open_folder(f"{tmp_path}/what?/b")
    folder.put_whole("x", b"1")
    assert (tmp_path / "what?" / "b" / "x").read_bytes() == b"1"
    assert folder.list() == ["x"]


def test_a_password_in_a_location_is_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError, match="password") as caught:
        open_folder("s3://key:hush@bucket/a")
    assert "hush" not in str(caught.value) + str(caught.value.where) + caught.value.hint


def test_drafts_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.put_whole("a/x", b"1")
    (tmp_path / "a" / ".tmp-123").write_bytes(b"part")
    folder.clear_drafts("a")
    folder.clear_drafts("none")
    assert os.listdir(tmp_path / "a") == ["x"]


def test_a_relative_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_folder("runs").uri == str(tmp_path / "runs")
