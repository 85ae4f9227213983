"""`startup-ray export-dataset`."""

from __future__ import annotations

from pathlib import Path

import pytest

from startup_ray.dataset import Dataset
from tests.outlet.made import files_in, hostile
from tests.test_cli import document, run


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return hostile(tmp_path / "datasets" / "x")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "webdatasets"], "did you mean 'webdataset'?"),
        (["--to", "zip"], "webdataset, tfrecord, folder, parquet"),
        (["--to", "folder", "--split", "dev"], "no images in a split 'dev'"),
        (["--to", "folder", "--shard-size", "much"], "not a size"),
        (["--to", "folder", "--shard-size", "0"], "not a size"),
        (["--to", "folder", "--out", "{0}"], "holds something else"),
        (["--to", "folder", "--out", "{0}/datasets/x/images/y"], "within the folder of the dataset"),
        (["--to", "folder", "--out", "s3://user:secret@bucket/x"], "a password does not belong"),
        ([], "required: --to"),
    ],
)
def test_a_mistake_is_told_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], dataset: Dataset, tmp_path: Path, words: list[str], told: str
) -> None:
    folder = str(dataset.folder)
    code, found = document(capsys, "export-dataset", folder, *(word.format(tmp_path) for word in words))
    assert code in (2, 5)
    assert told in found["error"]["message"] + found["error"]["hint"]
    assert "secret" not in str(found)
    names = {path.split("/")[2] for path in files_in(tmp_path)}
    assert names <= {"dataset.json", "images", "lease"}


def test_no_dataset(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = document(capsys, "export-dataset", str(tmp_path / "none"), "--to", "folder")
    assert (code, found["error"]["message"]) == (2, "no finished dataset here")


def test_the_command(capsys: pytest.CaptureFixture[str], dataset: Dataset, tmp_path: Path) -> None:
    words = ["export-dataset", str(dataset.folder), "--to", "webdataset", "--shard-size", "1KiB"]
    code, found = document(capsys, *words)
    assert code == 0
    assert list(found) == ["export", "to", "dataset", "digest", "files", "bytes", "splits"]
    assert found["files"] == len(list(Path(found["export"]).glob("*.tar"))) > 3
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.splitlines()[0] == f"export    {found['export']}"
    code, found = document(capsys, *words[:-1], "2KiB")
    assert (code, found["error"]["message"]) == (2, "another export is in this folder")
