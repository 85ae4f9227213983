from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.dataset import require_success
from startup_ray.errors import DataError, StorageError
from startup_ray.forgotten import (
    NOTHING,
    Forgotten,
    add_request,
    drop_marks,
    forgotten_outcome,
    home_of,
    marks_of,
    read_forgotten,
    requests_in,
    scope_of,
    url_of,
)
from startup_ray.ledger import failures
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns

URL = "https://example.com/people/7.jpg"
PETS = "pets-0123abcd"


def forgot(**item: str) -> Forgotten:
    return Forgotten(PETS, frozenset(marks_of(PETS, **item)))


def test_each_of_id_url_and_body_is_enough() -> None:
    listed = forgot(item_id="7", url=URL, sha256="5f")
    assert listed.takes(item_id="7")
    assert listed.takes(item_id="8", url=URL)
    assert listed.takes(item_id="8", url="https://example.com/8.jpg", sha256="5f")
    assert not listed.takes(item_id="8", url="https://example.com/8.jpg", sha256="60")
    assert not listed.takes()
    assert not NOTHING.takes(item_id="7", url=URL)


def test_kinds_are_kept_apart() -> None:
    """An id that reads like a URL or like a hash is neither."""
    listed = forgot(item_id=URL)
    assert listed.takes(item_id=URL)
    assert not listed.takes(url=URL)
    assert not listed.takes(sha256=f"{PETS}/{URL}")


def test_an_id_counts_among_the_datasets_of_one_manifest_and_a_url_everywhere() -> None:
    elsewhere = Forgotten("dogs-0123abcd", forgot(item_id="7", url=URL).marks)
    assert not elsewhere.takes(item_id="7")
    assert elsewhere.takes(url=URL)


@pytest.mark.parametrize("url", ["https://user:pw@example.com:8443/people/7.jpg#x", URL])
def test_a_url_counts_as_the_ledger_shows_it(url: str) -> None:
    assert forgot(url=URL).takes(url=url)


@pytest.mark.parametrize(
    "url",
    ["", "https://e.com/get?token=abc", "file:///data/train.parquet", "s3://b/x.parquet#group=1&row=0"],
)
def test_a_url_that_many_pictures_may_share_is_no_mark(url: str) -> None:
    """Else one of them would take the others along."""
    assert url_of(url) == ""
    assert marks_of(PETS, url=url) == set()


def test_a_file_is_known_again_after_a_change_and_a_row_of_a_file_is_not() -> None:
    """After a change other pictures may stand in the rows."""
    assert forgot(url="file:///people/7.jpg#changed=1").takes(url="file:///people/7.jpg#changed=2")
    row = "file:///people.parquet#group=0&row=5&changed=1"
    assert forgot(url=row).takes(url=row)
    assert not forgot(url=row).takes(url=row.replace("row=5", "row=6"))
    assert not forgot(url=row).takes(url=row.replace("changed=1", "changed=2"))


@given(st.text(), st.text())
def test_marks_never_fail_and_show_nothing(item_id: str, url: str) -> None:
    for mark in marks_of(PETS, item_id=item_id, url=url):
        assert len(mark) == 64
        assert int(mark, 16) >= 0


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        (PETS, PETS),
        (f"{PETS}-2", PETS),
        (f"{PETS}-13", PETS),
        ("pets-7", "pets-7"),
        ("pets", "pets"),
        *((f"pets-20310504-12345678{tail}", "pets-20310504-12345678") for tail in ("", "-2")),
    ],
)
def test_a_dataset_ingested_afresh_is_of_the_same_manifest(name: str, scope: str) -> None:
    assert scope_of(Folder(f"/runs/datasets/{name}")) == scope


def test_the_list_lies_in_the_storage_or_beside_a_dataset_that_lies_in_none() -> None:
    assert home_of(Folder("/runs/datasets/pets")) == Folder("/runs/forgotten")
    assert home_of(Folder("s3://b/runs/datasets/pets?region=x")) == Folder("s3://b/runs/forgotten?region=x")
    assert home_of(Folder("/mine/pets")) == Folder("/mine/pets/forgotten")


def test_requests_add_up_and_the_same_one_counts_once(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "datasets" / PETS))
    seven, eight = marks_of(PETS, item_id="7", url=URL), marks_of(PETS, item_id="8")
    assert read_forgotten(folder) == Forgotten(PETS, frozenset())
    first = add_request(home_of(folder), [seven], [], "2031-05-04T10:00:00Z")
    assert add_request(home_of(folder), [seven], [], "2031-05-05T10:00:00Z") == first
    add_request(home_of(folder), [eight], [{"kind": "run"}], "2031-05-06T10:00:00Z")
    listed = read_forgotten(folder)
    assert listed.marks == seven | eight
    assert len(list(requests_in(home_of(folder)))) == 2
    assert URL.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "forgotten").iterdir())


def test_what_is_let_in_again_leaves_the_others(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "datasets" / PETS))
    seven, eight = marks_of(PETS, item_id="7", url=URL), marks_of(PETS, item_id="8")
    add_request(home_of(folder), [seven, eight], [], "")
    assert drop_marks(home_of(folder), marks_of(PETS, url=URL)) == 1
    assert read_forgotten(folder).marks == eight
    assert drop_marks(home_of(folder), marks_of(PETS, url=URL)) == 0
    assert drop_marks(home_of(folder), eight) == 1
    assert not (tmp_path / "forgotten").exists() or not list((tmp_path / "forgotten").iterdir())


@pytest.mark.parametrize("text", [b"", b'{"words": [["ab"', b"{}", b'{"words": 3}', b'{"words": [[3]]}', b"[]"])
def test_a_list_that_cannot_be_read_lets_nothing_in(tmp_path: Path, text: bytes) -> None:
    folder = Folder(str(tmp_path / "datasets" / PETS))
    home_of(folder).put_whole("0123456789abcdef.json", text)
    with pytest.raises(StorageError):
        read_forgotten(folder)


def test_nothing_but_the_id_is_left() -> None:
    left = forgotten_outcome("7")
    assert (left.id, left.url, left.status, left.reason, left.sha256, left.bytes) == ("7", "", "forgotten", "", None, 0)
    assert forgotten_outcome(URL).id == ""


def test_no_retry_takes_what_was_forgotten_unless_it_is_named() -> None:
    assert not failures().takes("forgotten")
    assert failures(["forgotten"]).takes("forgotten")


def test_it_counts_neither_as_success_nor_as_failure(tmp_path: Path) -> None:
    """Else those who heed a request would fall below their threshold, or fetch worse unseen."""
    images, labels = patterns(3)
    made = make_dataset(Folder(str(tmp_path)), images, labels, ["train"] * 3)
    require_success(replace(made, items=104, counts={"ok": 3, "http_404": 1, "forgotten": 100}), 0.75)
    with pytest.raises(DataError, match=r"3 of 4 items succeeded \(75.0%\), .* asks for 80.0%: http_404 1\n"):
        require_success(replace(made, items=104, counts={"ok": 3, "http_404": 1, "forgotten": 100}), 0.8)
    with pytest.raises(DataError, match="0 of 0 items succeeded"):
        require_success(replace(made, items=3, counts={"forgotten": 3}), 0.0)
