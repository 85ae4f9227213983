"""What each part of an audit finds, alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.audit.items import read_items
from startup_ray.audit.labels import read_labels
from startup_ray.audit.near import read_groups
from startup_ray.audit.oddities import FAR, robust
from startup_ray.audit.sheets import MAX_CELLS, read_sheets, read_thumbnails
from startup_ray.audit.sizes import by_powers, by_shape, short
from startup_ray.audit.survey import Survey, pixels_at, read_survey
from startup_ray.dataset import Dataset
from startup_ray.storage import Folder
from tests.audit.made import CLASSES, defective, scene
from tests.fakes import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return defective(Folder(str(tmp_path_factory.mktemp("dataset"))))


@pytest.fixture(scope="module")
def survey(dataset: Dataset) -> Survey:
    return read_survey(dataset)


def test_brightness_and_contrast_are_those_of_the_pixels(survey: Survey) -> None:
    pixels = scene(5)
    assert survey.brightness[5] == pytest.approx(pixels.mean())
    assert survey.contrast[5] == pytest.approx(pixels.std(axis=(0, 1)).max())
    assert np.isnan(survey.contrast[69])


def test_shards_are_read_in_their_order(tmp_path: Path) -> None:
    images = np.stack([scene(i) for i in range(7)])
    dataset = make_dataset(Folder(str(tmp_path)), images, ["a"] * 7, ["train"] * 7, shards=3)
    survey = read_survey(dataset)
    assert survey.ids.to_pylist() == [f"{i:05d}" for i in (0, 3, 6, 1, 4, 2, 5)]
    found = dict(pixels_at(dataset, [5, 2]))
    assert found.keys() == {2, 5}
    np.testing.assert_array_equal(found[2], images[6])
    np.testing.assert_array_equal(found[5], images[2])


def test_groups_that_straddle_splits_stand_first(survey: Survey) -> None:
    groups = read_groups(survey)
    assert [(group.members, group.straddles, group.disagrees) for group in groups] == [
        ((0, 60), True, False),
        ((1, 61), False, True),
    ]


def test_failures_by_host_and_state_with_the_first_of_each(dataset: Dataset) -> None:
    items = read_items(dataset)
    told = [(failure.host, failure.status, failure.items, failure.id, failure.reason) for failure in items.failures]
    assert told == [
        ("b.org", "http_404", 2, "gone-1", "Not Found"),
        ("a.org", "timeout", 1, "slow-1", "silent for 15 s"),
    ]
    assert items.hosts == 2
    assert [(one.id, one.others, one.example) for one in items.repeated] == [
        ("00000", 2, "copy-1"),
        ("00003", 1, "copy-3"),
    ]
    assert items.groups == 2
    assert items.sizes.tolist() == [900 + 40 * i for i in range(70)]


def test_a_sheet_of_each_class_with_a_seeded_choice(dataset: Dataset, survey: Survey) -> None:
    labels = read_labels(dataset, survey)
    assert [label.name for label in labels] == list(CLASSES)
    sheets = read_sheets(dataset, survey, labels, seed=1)
    assert [(sheet.label, sheet.cells) for sheet in sheets][2] == ("owl", 1)
    assert max(sheet.cells for sheet in sheets) <= MAX_CELLS
    assert sheets == read_sheets(dataset, survey, labels, seed=1)
    assert sheets != read_sheets(dataset, survey, labels, seed=2)
    assert read_thumbnails(dataset, [3, 69]).keys() == {3}


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_a_histogram_counts_every_value_once_and_stays_readable(values: list[int]) -> None:
    found = by_powers("sizes", np.array(values))
    assert sum(number for _, number in found.bars) == len(values)
    assert len(found.bars) <= 31
    assert len({name for name, _ in found.bars}) == len(found.bars)


def test_shapes_are_parted_at_common_ones() -> None:
    bars = dict(by_shape("shape", np.array([0.2, 1.0, 1.04, 1.5, 4 / 3, 10])).bars)
    assert {name: number for name, number in bars.items() if number} == {
        "< 1:3": 1,
        "1:1": 2,
        "> 1:1": 1,
        "≥ 3:2": 1,
        "≥ 3:1": 1,
    }
    assert short(12_345) == "12.3k"


def test_what_is_far_off_does_not_hide_itself() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(100, 10, 200), np.full(20, 255.0), [np.nan]])
    assert np.flatnonzero(np.abs(robust(values)) > FAR).tolist() == list(range(200, 220))
    assert not robust(np.array([5.0, 5.0, 5.0, 9.0])).any()
    assert not robust(np.full(3, np.nan)).any()
