"""A dataset on an object store, and one that lies in no storage of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from startup_ray.audit import audit
from startup_ray.dataset import read_dataset
from startup_ray.storage import Folder
from tests.audit.made import defective, judge
from tests.s3 import KEYS, s3_server


@pytest.mark.ray
def test_on_an_object_store_it_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Folder(str(tmp_path))
    here = defective(storage / "datasets" / "made")
    judge(storage, here)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as server:
        there = server.folder("audit")
        defective(there / "datasets" / "made")
        dataset = read_dataset(there / "datasets" / "made")
        judge(there, dataset)
        found = audit(dataset, dataset.folder.path("audit.html"))
        assert dataset.folder.read("audit.html").startswith(b"<!doctype html>")
    assert found["findings"] == audit(here, str(tmp_path / "page.html"))["findings"]


def test_a_dataset_of_no_storage_is_judged_by_none(tmp_path: Path) -> None:
    dataset = defective(Folder(str(tmp_path)) / "elsewhere" / "made")
    judge(Folder(str(tmp_path)), dataset)
    assert audit(dataset, str(tmp_path / "page.html"))["run"] is None
