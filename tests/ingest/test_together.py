from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from startup_ray.dataset import Dataset, read_dataset, write_dataset
from startup_ray.forgotten import Forgotten, marks_of
from startup_ray.ingest.chunks import IMAGES, LEDGER, commit, names_in, read_part, read_shard
from startup_ray.ingest.forget import erase, restore, set_aside
from startup_ray.ingest.seal import Sealed, seal
from startup_ray.job import ImageOptions, IngestOptions, SplitOptions
from startup_ray.lease import hold
from startup_ray.ledger import Outcome
from startup_ray.runs import dataset_key
from startup_ray.storage import Folder
from tests.audit.made import darker, scene
from tests.fakes import png
from tests.ingest.test_seal import Dying, Stop

OPTIONS = ImageOptions(size=(32, 32))
Row = tuple[int, bool, str]
"""Which scene it shows, whether darker, and its own split."""
FAILED: Row = (-1, False, "train")


def put(folder: Folder, rows: Sequence[Row], size: int) -> list[str]:
    """Commit rows in chunks, as fetch actors would; chunks that are there stay."""
    names = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        names.append(f"{start:06d}-{abs(hash(tuple(chunk))):x}")
        if names[-1] not in names_in(folder, LEDGER):
            pictures = [picture(start + i, row) for i, row in enumerate(chunk) if row != FAILED]
            commit(folder, names[-1], [outcome(start + i, row) for i, row in enumerate(chunk)], pictures)
    return names


def outcome(place: int, row: Row) -> Outcome:
    status = "dns" if row == FAILED else "ok"
    return Outcome(id=str(place), url="u", status=status, sha256=f"sha-{place}")


def picture(place: int, row: Row) -> dict[str, Any]:
    kind, is_darker, split = row
    body = png(darker(scene(kind)) if is_darker else scene(kind))
    size = {"width": 32, "height": 32, "own": None}
    return {"id": str(place), "sha256": f"sha-{place}", "label": "a", "split": split, "image": body} | size


def splits_of(folder: Folder) -> list[str]:
    shards = [read_part(folder, name).shard for name in names_in(folder, LEDGER)]
    return [split for shard in shards if shard for split in read_shard(folder, shard)["split"].to_pylist()]


def expected(rows: Sequence[Row]) -> list[str]:
    """The slow and obvious way."""
    first: dict[int, str] = {}
    return [first.setdefault(kind, split) for kind, is_darker, split in rows if kind >= 0]


def sealed(rows: Sequence[Row], size: int = 2) -> Sealed:
    root = tempfile.mkdtemp()
    folder = Folder(root)
    with hold(folder) as lease:
        found = seal(folder, put(folder, rows, size), lease.fence, OPTIONS)
    shutil.rmtree(root)
    return found


ROWS = st.lists(
    st.one_of(st.just(FAILED), st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(["train", "val", "test"]))),
    min_size=1,
    max_size=8,
)


@pytest.mark.ray
@settings(max_examples=5, deadline=None)
@given(ROWS, ROWS, st.integers(1, 3))
def test_the_first_decides_and_history_does_not_count(before: list[Row], rows: list[Row], size: int) -> None:
    """Whatever an earlier state of the manifest has moved, the end is that of the present one, made afresh."""
    root = tempfile.mkdtemp()
    folder = Folder(root)
    with hold(folder) as lease:
        seal(folder, put(folder, before, size), lease.fence, OPTIONS)
        names = put(folder, rows, size)
        found = seal(folder, names, lease.fence, OPTIONS)
        assert splits_of(folder) == expected(rows)
        shards = names_in(folder, IMAGES)
        assert seal(folder, names, lease.fence, OPTIONS) == found
        assert names_in(folder, IMAGES) == shards  # nothing was left to do
    assert found.digest == sealed(rows, size=5).digest
    shutil.rmtree(root)


def test_what_is_appended_moves_nothing_that_was_there(tmp_path: Path) -> None:
    rows: list[Row] = [(0, False, "train"), (1, False, "test"), (0, True, "test")]
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        seal(folder, put(folder, rows, 3), lease.fence, OPTIONS)
        assert splits_of(folder) == ["train", "test", "train"]
        grown = [*rows, (1, True, "train"), (2, False, "val"), (0, True, "val")]
        seal(folder, put(folder, grown, 3), lease.fence, OPTIONS)
        assert splits_of(folder) == ["train", "test", "train", "test", "val", "train"]


def test_a_leader_that_comes_later_to_an_earlier_place_takes_over(tmp_path: Path) -> None:
    """As after `--retry-failed`; and one that goes again gives back."""
    rows: list[Row] = [FAILED, (0, False, "train"), (0, True, "test")]
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        for first, wanted in ((FAILED, ["train"] * 2), ((0, True, "val"), ["val"] * 3), (FAILED, ["train"] * 2)):
            seal(folder, put(folder, [first, *rows[1:]], 1), lease.fence, OPTIONS)
            assert splits_of(folder) == wanted


def test_without_the_option_nothing_changes(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        names = put(folder, [(0, False, "train"), (0, True, "test")], 1)
        shards = names_in(folder, IMAGES)
        seal(folder, names, lease.fence)
    assert splits_of(folder) == ["train", "test"]
    assert names_in(folder, IMAGES) == shards


@pytest.mark.ray
def test_killed_at_every_write(tmp_path: Path) -> None:
    rows: list[Row] = [(0, False, "train"), (1, False, "test"), (0, True, "test"), (1, True, "train"), (0, True, "val")]
    wanted = sealed(rows)
    for steps in range(100):
        folder = Folder(str(tmp_path / str(steps)))
        with hold(folder) as lease:
            names = put(folder, rows, 2)
            Dying.left = steps
            try:
                seal(Dying(folder.uri), names, lease.fence, OPTIONS)
            except Stop:
                again = seal(folder, names, lease.fence, OPTIONS)
                assert again.digest == wanted.digest
                assert splits_of(folder) == expected(rows)
                assert len(names_in(folder, IMAGES)) == 3
            else:
                assert steps == 6  # two shards and two parts are written, two shards deleted
                return
    raise AssertionError("never ends")


def test_a_damaged_image_keeps_its_split(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        broken = [picture(i, (0, False, split)) | {"image": b"broken"} for i, split in enumerate(("train", "test"))]
        commit(folder, "000000-a", [outcome(i, (0, False, "train")) for i in range(2)], broken)
        seal(folder, ["000000-a"], lease.fence, OPTIONS)
    assert splits_of(folder) == ["train", "test"]


def test_the_option_names_another_dataset_and_leaves_a_manifests_splits_alone() -> None:
    plain, grouped = (
        dataset_key(IngestOptions(manifest="http://h/m.json", split=SplitOptions(group=group)))
        for group in (None, "near_duplicates")
    )
    assert plain != grouped
    with pytest.raises(ValidationError, match="group moves images"):
        SplitOptions(by="manifest", group="near_duplicates")


def test_what_is_forgotten_leads_no_more(tmp_path: Path) -> None:
    """Ingest, then forget, is what an ingest with the list from the start makes."""
    rows: list[Row] = [(0, False, "train"), (0, True, "test"), (1, False, "val")]
    folder = Folder(str(tmp_path))
    with hold(folder) as lease:
        found = seal(folder, put(folder, rows, 2), lease.fence, OPTIONS)
        parts = {name: getattr(found, name) for name in ("digest", "items", "counts", "splits", "classes", "shards")}
        shape = OPTIONS.shape
        write_dataset(
            Dataset(
                folder=folder,
                **parts,
                image_shape=shape,
                image=OPTIONS,
                group="near_duplicates",
                manifest="m",
                manifest_digest="d",
            )
        )
        assert splits_of(folder) == ["train", "train", "val"]
        set_aside(folder)
        erase(folder, Forgotten(marks=frozenset(marks_of("", item_id="0"))), lease.fence)
        restore(folder, lease.fence)
    assert splits_of(folder) == ["test", "val"]
    assert read_dataset(folder).group == "near_duplicates"
