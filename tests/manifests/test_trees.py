"""Laws of folders: one order, nothing hidden, and nothing outside; on a disk and on an object store alike."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.manifests.trees import Entry, LocalTree, Tree, entry_at, open_tree, top, walk
from tests.s3 import KEYS, s3_server

NAMES = ("b.png", "a/c", "a/b/d.jpg", "a.png", ".hidden", ".git/e.png", "a/.f", "z z/ü#?%.png")
SEEN = ["a.png", "a/b/d.jpg", "a/c", "b.png", "z z/ü#?%.png"]


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tree_at(location: str | Path) -> Tree:
    tree = open_tree(str(location))
    assert tree is not None
    return tree


def test_every_file_in_the_order_of_whole_names_and_nothing_hidden(tmp_path: Path) -> None:
    for name in NAMES:
        put(tmp_path / name)
    tree = tree_at(tmp_path)
    assert [entry.name for entry in walk(tree)] == sorted(SEEN) == SEEN
    assert [(entry.name, entry.is_folder) for entry in top(tree)] == [
        ("a.png", False),
        ("a", True),
        ("b.png", False),
        ("z z", True),
    ]
    assert tree.url("z z/ü#?%.png") == f"{tmp_path.as_uri()}/z%20z/%C3%BC%23%3F%25.png"
    assert tree.location("a/c") == f"{tmp_path}/a/c"
    assert open_tree(str(tmp_path / "b.png")) is None
    assert open_tree(str(tmp_path / "none")) is None


class Names:
    """A tree of names alone."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def entries(self, folder: str = "") -> list[Entry]:
        parts = folder.split("/") if folder else []
        below = [name.split("/") for name in self.names]
        inside = {(*parts, split[len(parts)]) for split in below if split[: len(parts)] == parts}
        return [Entry(name="/".join(name), is_folder="/".join(name) not in self.names) for name in inside]

    def url(self, name: str) -> str:
        return name

    location = url


@given(st.sets(st.lists(st.text("a.-~ü", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join)))
def test_the_order_is_that_of_whole_names(names: set[str]) -> None:
    files = {name for name in names if not any(other.startswith(f"{name}/") for other in names)}
    assert [entry.name for entry in walk(Names(files))] == sorted(files)


def test_size_and_time_of_each_file(tmp_path: Path) -> None:
    os.utime(put(tmp_path / "a", b"123"), ns=(0, 1_234_567_890_123_456_789))
    wanted = Entry(name="a", size=3, changed_ns=1_234_567_890_123_456_789)
    assert list(walk(tree_at(tmp_path))) == [wanted]
    assert entry_at(str(tmp_path / "a")) == wanted


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "photos", put(tmp_path / "secret" / "key.png")
    put(folder / "a" / "1.png")
    (folder / "same.png").symlink_to(folder / "a" / "1.png")
    (folder / "again").symlink_to(folder / "a")  # its files are found where they are
    (folder / "round").symlink_to(folder)
    (folder / "out.png").symlink_to(secret)
    (folder / "a" / "up").symlink_to("../../secret")
    (folder / "circle").symlink_to("circle")
    left = "a link that leaves the folder"
    assert {entry.name: entry.fault for entry in walk(LocalTree(str(folder)))} == {
        "a/1.png": "",
        "a/up": left,
        "circle": "",
        "out.png": left,
        "same.png": "",
    }


def test_a_pipe_is_an_entry_with_a_fault(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert list(walk(LocalTree(str(tmp_path)))) == [Entry(name="pipe.csv", fault="cannot be read: not a regular file")]


def test_a_folder_that_cannot_be_read_is_an_entry_with_a_fault(tmp_path: Path) -> None:
    (entry,) = walk(LocalTree(str(tmp_path / "none")))
    assert entry == Entry(name="", fault="cannot be read: No such file or directory")


def test_deep_folders_need_no_deep_recursion() -> None:
    name = "/".join("d" * 1_500)
    assert [entry.name for entry in walk(Names({name}))] == [name]


@pytest.mark.ray  # the server takes seconds to start
def test_an_object_store_is_walked_as_a_disk_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as server:
        folder = server.folder("photos")
        for name in NAMES:
            folder.put_whole(name, b"x")
        tree = tree_at(folder.uri)
        assert [entry.name for entry in walk(tree)] == SEEN
        assert tree.url("a/c") == "s3://bucket/photos/a/c"
        assert tree.location("a/c") == folder.path("a/c")
        assert all(entry.changed_ns > 0 and entry.size == 1 for entry in walk(tree))
        (found,) = [entry for entry in walk(tree) if entry.name == "a/c"]
        assert entry_at(folder.path("a/c")) == replace(found, name="c")
        assert open_tree(server.folder("none").uri) is None
