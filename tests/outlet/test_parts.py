"""Where parts end."""

from __future__ import annotations

import errno
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.errors import StorageError
from startup_ray.outlet.parts import Cut, scratch


@given(st.lists(st.tuples(st.sampled_from(["train", "val"]), st.integers(1, 50))), st.integers(1, 60))
def test_parts_are_full_and_no_fuller(images: list[tuple[str, int]], limit: int) -> None:
    cut = Cut(limit)
    placed = [(split, cut.place(split, size), size) for split, size in images]
    for split in ("train", "val"):
        mine = [(number, size) for name, number, size in placed if name == split]
        parts = [[size for _, size in group] for _, group in groupby(mine, key=lambda pair: pair[0])]
        assert [number for number, _ in groupby(mine, key=lambda pair: pair[0])] == list(range(cut.parts[split]))
        assert all(sum(part) <= limit or len(part) == 1 for part in parts)
        assert all(sum(part) + after[0] > limit for part, after in pairwise(parts))


def test_a_full_disk_names_the_way_out() -> None:
    with pytest.raises(StorageError, match="No space left") as caught, scratch() as folder:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "TMPDIR" in caught.value.hint
    assert not folder.exists()
