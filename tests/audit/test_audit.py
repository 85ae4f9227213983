from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from startup_ray import data_api
from startup_ray.audit import audit
from startup_ray.audit.finding import KINDS
from startup_ray.cli import main
from startup_ray.errors import StorageError, UsageError
from startup_ray.runs import EXIT, put_json, read_run
from startup_ray.storage import Folder
from tests.audit.made import defective, judge, scene
from tests.fakes import make_dataset
from tests.report.tags import Tags


def test_every_defect_is_found_and_nothing_else(tmp_path: Path) -> None:
    storage = Folder(str(tmp_path))
    dataset = defective(storage / "datasets" / "made")
    run = judge(storage, dataset)
    document = audit(dataset, dataset.folder.path("audit.html"))
    found = {row["kind"]: row for row in document["findings"]}
    places = {
        "near_duplicates_across_splits": [60],
        "near_duplicates_other_labels": [61],
        "near_duplicates": [60, 61],
        "blank": [62],
        "nearly_blank": [63],
        "tiny": [64],
        "extreme_aspect": [65],
        "unlabelled": [67],
        "damaged": [69],
    }
    for kind, wanted in places.items():
        assert found[kind]["examples"] == [f"{i:05d}" for i in wanted], kind
        assert found[kind]["count"] == len(wanted)
        assert found[kind]["of"] == 70
    assert found["odd_brightness"]["examples"] == found["odd_contrast"]["examples"] == ["00066"]
    assert found["missing_labels"]["examples"] == found["rare_labels"]["examples"] == ["owl"]
    assert found["failures"]["count"] == 3
    assert set(found["failures"]["examples"]) == {"gone-1", "slow-1"}
    assert found["exact_duplicates"]["count"] == 3
    assert found["likely_wrong_labels"]["examples"] == ["00000", "00003", "00006"]
    assert found.keys() == KINDS.keys()
    assert document["run"] == str(run)
    levels = [row["level"] for row in document["findings"]]
    assert levels == sorted(levels)


def test_the_page_shows_pictures_and_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}")
    storage = Folder(str(tmp_path))
    dataset = defective(storage / "datasets" / "made", evil)
    judge(storage, dataset)
    audit(dataset, str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    tags = Tags(text)
    assert not {tag for tag, _ in tags.found} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, given in tags.found:
        assert not any(name.startswith("on") for name in given)
        assert given.get("src", "data:image/").startswith("data:image/")
        assert given.get("href", "#").startswith("#")
    assert all(name in tags.text for name in evil)
    assert "http://b.org/<gone>" in tags.text
    ids = [given["id"] for _, given in tags.found if "id" in given]
    assert len(ids) == len(set(ids))
    assert {given["href"][1:] for tag, given in tags.found if tag == "a"} <= set(ids)
    assert len([given for tag, given in tags.found if tag == "img"]) == 19
    assert len(text) < 1_000_000


def test_a_sound_dataset_without_a_run(tmp_path: Path) -> None:
    images = np.stack([scene(i) for i in range(60)])
    dataset = make_dataset(Folder(str(tmp_path)), images, ["a", "b"] * 30, ["train", "train", "test"] * 20)
    document = audit(dataset, str(tmp_path / "page.html"))
    assert document["findings"] == []
    assert document["run"] is None
    words = Tags((tmp_path / "page.html").read_text()).words
    assert "nothing bad found" in words
    assert "No model has judged this dataset yet" in words


def test_a_dataset_without_images(tmp_path: Path) -> None:
    dataset = make_dataset(Folder(str(tmp_path)), np.zeros((0, 8, 8), np.uint8), [], [], shards=0)
    assert audit(dataset, str(tmp_path / "page.html"))["findings"] == []


def test_what_cannot_be_audited_is_told(tmp_path: Path) -> None:
    storage = Folder(str(tmp_path))
    dataset = defective(storage / "datasets" / "made")
    with pytest.raises(UsageError, match="needs a file name"):
        audit(dataset, f"{tmp_path}/")
    gan = judge(storage, dataset, "gan-1")
    put_json(gan, EXIT, {"run": str(gan), "kind": "gan"})
    with pytest.raises(UsageError, match="is a GAN"):
        data_api.audit_dataset(dataset, run=read_run(gan))
    with pytest.raises(UsageError, match="no finished run"):
        data_api.audit_dataset(dataset, run=read_run(storage / "runs" / "none"))
    dataset.folder.delete(f"images/{dataset.shards[0]}")
    with pytest.raises(StorageError, match="cannot read the dataset"):
        audit(dataset, str(tmp_path / "page.html"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = defective(Folder(str(tmp_path)) / "datasets" / "made")
    assert main(["audit", str(dataset.folder), "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["audit", dataset.folder.path("audit.html")]
    assert lines[1].split() == ["70", "images", "of", "77", "items"]
    assert lines[2].split()[:2] == ["bad", "1"]
    assert "and 4 more kinds, see the page" in lines[-1]
    out = str(tmp_path / "other.html")
    assert main(["audit", str(dataset.folder), "-q", "--json", "--out", out]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["audit"] == out
    assert document["counts"]["ok"] == 70
    assert Path(out).exists()
