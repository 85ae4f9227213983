"""Files of a folder: which are found, by which ids, and what becomes of those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from startup_ray.errors import UsageError
from startup_ray.predict.files import Found, find_files, read_file


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def ids(*targets: str | Path) -> list[str]:
    return [found.id for found in find_files([str(target) for target in targets])]


def faults(folder: Path) -> dict[str, str]:
    return {found.id: found.fault for found in find_files([str(folder)]) if found.fault}


def test_a_folder_is_walked_and_what_is_hidden_left_out(tmp_path: Path) -> None:
    for name in ("b.png", "a/c", "a/b/d.jpg", ".hidden", ".git/e.png", "a/.f"):
        put(tmp_path / "photos" / name)
    assert ids(tmp_path / "photos") == ["a/b/d.jpg", "a/c", "b.png"]


def test_of_several_targets_ids_are_paths_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/1.png", "two/1.png", "3.png"):
        put(tmp_path / name)
    assert ids("one", "two/", "./3.png", "one/1.png") == ["3.png", "one/1.png", "two/1.png"]
    assert ids("3.png") == ["3.png"]
    assert ids(".") == ["3.png", "one/1.png", "two/1.png"]


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "photos", put(tmp_path / "secret" / "key.png")
    put(folder / "a" / "1.png")
    (folder / "same.png").symlink_to(folder / "a" / "1.png")
    (folder / "again").symlink_to(folder / "a")  # its files are found where they are
    (folder / "round").symlink_to(folder)
    (folder / "out.png").symlink_to(secret)
    (folder / "a" / "up").symlink_to("../../secret")
    (folder / "circle").symlink_to("circle")
    assert ids(folder) == ["a/1.png", "a/up", "circle", "out.png", "same.png"]
    left = "a link that leaves the folder"
    assert faults(folder) == {"a/up": left, "out.png": left}
    circle = next(found for found in find_files([str(folder)]) if found.id == "circle")
    assert read_file(circle, 9).status == "bad_item"


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    """What a user names is meant; only what a folder brings along is not trusted."""
    put(tmp_path / "real" / "1.png")
    (tmp_path / "named").symlink_to(tmp_path / "real")
    assert ids(tmp_path / "named") == ["1.png"]
    assert faults(tmp_path / "named") == {}


def test_a_name_that_is_no_text_is_told_as_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    put(tmp_path / "café.png")
    assert ids(tmp_path) == ["caf\\xe9.png", "café.png"]


def test_what_is_no_file_is_told_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (found,) = find_files([str(tmp_path)])
    fetched = read_file(found, 9)
    assert (fetched.status, fetched.reason) == ("bad_item", "cannot be read: not a regular file")
    assert read_file(Found(id="x", path=tmp_path / "gone"), 9).reason == "cannot be read: No such file or directory"


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    found = Found(id="x", path=put(tmp_path / "x", b"12345"))
    assert read_file(found, 5).body == b"12345"
    assert (read_file(found, 4).status, read_file(found, 4).body) == ("too_large", None)


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        find_files([str(tmp_path / "none")])
