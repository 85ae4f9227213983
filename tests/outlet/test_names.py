"""Names of files and folders are safe, and tell ids and labels apart."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.outlet.names import file_name, folder_names
from tests.outlet.made import HOSTILE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120) | st.sampled_from(HOSTILE)
DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])", re.IGNORECASE)


def folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def require_safe(name: str) -> None:
    assert 0 < len(name.encode()) < 128
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t')
    assert all(unicodedata.category(sign) not in ("Cc", "Cf", "Cs") for sign in name)
    assert not name.startswith((".", "-", " ", "_"))
    assert not name.endswith((".", " "))
    assert not DEVICES.fullmatch(name.partition(".")[0])
    assert unicodedata.normalize("NFC", name) == name


@given(st.sets(TEXT, min_size=1, max_size=8))
def test_names_of_files(ids: set[str]) -> None:
    names = [file_name(item, "png") for item in ids]
    for name in names:
        require_safe(name)
        assert name.count(".") == 1
    assert len({folded(name) for name in names}) == len(ids)


@given(st.lists(TEXT, min_size=1, max_size=8, unique=True))
def test_names_of_folders(labels: list[str]) -> None:
    names = folder_names(labels)
    for name in names:
        require_safe(name)
        assert "." not in name
    assert len({folded(name) for name in names}) == len(labels)


def test_hostile_labels_together() -> None:
    names = folder_names(HOSTILE)
    assert len({folded(name) for name in names}) == len(HOSTILE)
    for name in names:
        require_safe(name)


@pytest.mark.parametrize("label", ["cat", "traffic light", "ä", "猫", "n02119789", "T-shirt", "0", "snake_case"])
def test_an_ordinary_label_is_its_own_name(label: str) -> None:
    assert folder_names(["other", label]) == ("other", label)


def test_twins_and_what_looks_like_their_names() -> None:
    assert folder_names(["cat", "Cat", "Cat-1", "CON", "a.b"]) == ("cat-0", "Cat-1", "Cat-1-2", "CON-3", "a_b-4")


def test_a_name_tells_the_id() -> None:
    assert re.fullmatch(r"cats_1-[0-9a-f]{16}\.jpg", file_name("cats/1", "jpg"))
