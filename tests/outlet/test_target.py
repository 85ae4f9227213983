"""A folder is whole, ours, or left alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from startup_ray.errors import UsageError
from startup_ray.outlet.target import Target
from startup_ray.storage import Folder
from tests.outlet.made import files_in


def target(folder: Path, **identity: object) -> Target:
    return Target(folder=Folder(str(folder)), identity={"to": "x", **identity}, ours=re.compile(r"data|a\.tar"))


def written(folder: Path, data: bytes = b"123") -> Target:
    made = target(folder)
    made.begin(fresh=False)
    made.put("a.tar", data, images=1)
    made.finish({"made_by": "test"})
    return made


def test_whole_with_its_last_file(tmp_path: Path) -> None:
    made = target(tmp_path / "out")
    assert made.finished() == {}
    made.begin(fresh=False)
    made.put("a.tar", b"123", images=1)
    assert made.finished() == {}
    whole = made.finish({"made_by": "test"})
    assert made.finished() == whole == json.loads((tmp_path / "out/export.json").read_text())
    assert set(files_in(tmp_path / "out")) == {"a.tar", "export.json"}
    assert (whole["count"], whole["bytes"], whole["files"][0]["images"]) == (1, 3, 1)


def test_not_whole_without_a_file_or_a_part_of_one(tmp_path: Path) -> None:
    made = written(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert made.finished()
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "a.tar").write_bytes(b"12")
    assert not made.finished()


def test_files_of_an_export_that_did_not_end_go(tmp_path: Path) -> None:
    first = target(tmp_path)
    first.begin(fresh=False)
    first.put("a.tar", b"half")
    again = target(tmp_path)
    again.begin(fresh=False)
    assert set(files_in(tmp_path)) == {"unfinished.json"}


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_somebody_elses_is_refused_and_stays(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "a.tar").write_bytes(b"not by us")
    before = files_in(tmp_path)
    with pytest.raises(UsageError, match=r"holds something else: 'a\.tar'"):
        target(tmp_path).begin(fresh=fresh)
    assert files_in(tmp_path) == before


def test_somebody_elses_file_beside_ours(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(UsageError, match=r"notes\.txt"):
        target(tmp_path).begin(fresh=True)
    assert files_in(tmp_path) == before


def test_another_export_goes_only_when_asked_for(tmp_path: Path) -> None:
    written(tmp_path)
    before = files_in(tmp_path)
    other = target(tmp_path, digest="other")
    assert other.finished() == {}
    with pytest.raises(UsageError, match="another export"):
        other.begin(fresh=False)
    assert files_in(tmp_path) == before
    other.begin(fresh=True)
    assert set(files_in(tmp_path)) == {"unfinished.json"}
