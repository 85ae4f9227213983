from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.dataset import (
    SPLITS,
    Digest,
    class_names,
    read_dataset,
    read_split,
    require_one_size,
    split_of,
    write_dataset,
)
from startup_ray.errors import StorageError, UsageError
from startup_ray.job import ImageOptions, SplitOptions
from startup_ray.runs import DATASET, put_json, read_json
from startup_ray.storage import Folder
from tests.fakes import make_dataset

HASHES = [hashlib.sha256(bytes([i & 255, i >> 8])).hexdigest() for i in range(4_000)]


def test_shares_of_the_splits() -> None:
    options = SplitOptions(val=0.1, test=0.2)
    found = [split_of(sha256, options) for sha256 in HASHES]
    shares = [found.count(split) / len(found) for split in SPLITS]
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.03)


@given(st.sampled_from(HASHES), st.floats(0, 0.4), st.floats(0, 0.5))
def test_an_image_leaves_the_test_split_only_when_it_shrinks(sha256: str, val: float, more: float) -> None:
    small, large = SplitOptions(val=val, test=0.1), SplitOptions(val=val, test=0.1 + more * 0.9)
    if split_of(sha256, small) == "test":
        assert split_of(sha256, large) == "test"


def test_the_ends_of_the_range() -> None:
    low, high = "0" * 64, "f" * 64
    assert split_of(low, SplitOptions(val=0, test=0)) == "train"
    assert split_of(low, SplitOptions(val=0, test=1e-9)) == "test"
    assert split_of(high, SplitOptions(val=0.5, test=0.49)) == "train"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "9", "1"], ("1", "9", "10")),
        (["10", "9", "a"], ("10", "9", "a")),
        (["01", "1"], ("01", "1")),
        (["²", "1"], ("1", "²")),
        ([], ()),
    ],
)
def test_class_names(labels: list[str], names: tuple[str, ...]) -> None:
    assert class_names(labels) == names


def test_digest_is_of_the_content() -> None:
    rows = [("a", "00", None, "train"), ("b", "11", "ü", "test")]
    whole, parts = Digest(), Digest()
    whole.update(rows)
    parts.update(rows[:1])
    parts.update(rows[1:])
    assert whole.text() == parts.text()
    text = b'["a","00",null,"train"]\n["b","11","\xc3\xbc","test"]\n'
    assert whole.text() == f"sha256:{hashlib.sha256(text).hexdigest()}"


def test_read_back(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    images = np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4)
    splits = ["train", "test", "train", "val", "train"]
    dataset = make_dataset(folder, images, ["b", "a", None, "a", "b"], splits)
    assert read_dataset(folder) == dataset
    table = read_split(dataset, "train", ["label", "id"])
    assert table.to_pydict() == {"label": ["b", None, "b"], "id": ["00000", "00002", "00004"]}
    folder.delete(f"images/{dataset.shards[0]}")
    with pytest.raises(StorageError):
        read_split(dataset, "train", ["id"])


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished dataset"):
        read_dataset(Folder(str(tmp_path)))


def test_a_run_is_no_dataset_and_tells_which_it_is_of(tmp_path: Path) -> None:
    put_json(Folder(str(tmp_path)), "dataset.json", {"dataset": "runs/datasets/digits-1", "digest": "sha256:00"})
    with pytest.raises(UsageError, match="no finished dataset") as caught:
        read_dataset(Folder(str(tmp_path)))
    assert caught.value.hint == "this is a run of runs/datasets/digits-1"


def test_what_images_were_made_into_is_remembered(tmp_path: Path) -> None:
    image = ImageOptions(size=(8, 8), channels=1, store="original", resize="border")
    made = make_dataset(Folder(str(tmp_path)), np.zeros((2, 8, 8), np.uint8), ["a", "b"], ["train"] * 2)
    write_dataset(replace(made, image=image))
    assert read_dataset(made.folder).image == image


def test_a_dataset_of_before_is_png_or_jpeg_of_its_shape(tmp_path: Path) -> None:
    made = make_dataset(Folder(str(tmp_path)), np.zeros((2, 8, 6), np.uint8), ["a", "b"], ["train"] * 2)
    document = read_json(made.folder, DATASET)
    del document["image"]
    put_json(made.folder, DATASET, document)
    assert read_dataset(made.folder).image == ImageOptions(size=(8, 6), channels=1)


def test_images_of_many_sizes_are_told_with_the_way_out() -> None:
    require_one_size((8, 8, 3), where="here")
    with pytest.raises(UsageError, match="a size of its own") as raised:
        require_one_size(ImageOptions(resize="no").shape, where="here")
    assert "center_crop or border" in raised.value.hint
