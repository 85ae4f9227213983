"""The order of a stream: what may change it and what may not."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.dataset import Dataset
from startup_ray.storage import Folder
from startup_ray.trainers.windows import Group, Order, choose_feed, fit_window

BATCH = 7


def order(*, sizes: tuple[int, ...] = (40, 3, 25, 60, 1, 31), window_rows: int = 50, seed: int = 3) -> Order:
    groups = tuple(Group(shard=f"{i}", index=0, rows=rows, stored_bytes=10 * rows) for i, rows in enumerate(sizes))
    return Order(groups=groups, global_batch=BATCH, seed=seed, window_rows=window_rows)


def drawn(the_order: Order, epoch: int, *, first: int = 0, positions: np.ndarray | None = None) -> list[list[str]]:
    """Names of the rows of each step, from step `first` on, for the worker at these positions."""
    places = np.arange(BATCH) if positions is None else positions
    steps: list[list[str]] = []
    for window in the_order.windows(epoch, first):
        skip = max(first - window.first, 0)
        names = np.empty((window.steps - skip) * len(places), object)
        for cut in the_order.cut(window, places, skip):
            names[cut.places] = [f"{cut.group.shard}/{row}" for row in cut.rows]
        steps += names.reshape(-1, len(places)).tolist()
    return steps


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) >= BATCH),
    window_rows=st.integers(1, 300),
    epoch=st.integers(0, 3),
)
def test_an_epoch_draws_every_row_once_but_for_the_tail(sizes: list[int], window_rows: int, epoch: int) -> None:
    the_order = order(sizes=tuple(sizes), window_rows=window_rows)
    rows = list(chain(*drawn(the_order, epoch)))
    assert len(rows) == len(set(rows)) == sum(sizes) // BATCH * BATCH
    assert set(rows) <= {f"{i}/{row}" for i, size in enumerate(sizes) for row in range(size)}


@pytest.mark.parametrize("split", [[[0, 1, 2, 3], [4, 5, 6]], [[0, 1], [2, 3], [4, 5, 6]], [[6, 0, 3], [1, 2, 5, 4]]])
def test_workers_together_draw_what_one_worker_draws(split: list[list[int]]) -> None:
    alone = drawn(order(), 1)
    together = [drawn(order(), 1, positions=np.array(positions)) for positions in split]
    for step, parts in zip(alone, zip(*together, strict=True), strict=True):
        assert list(chain(*parts)) == [step[position] for position in chain(*split)]


def test_begun_in_the_middle_it_draws_what_it_would_have_drawn() -> None:
    whole = drawn(order(), 2)
    for first in range(len(whole)):
        assert drawn(order(), 2, first=first) == whole[first:]


def test_begun_in_the_middle_it_reads_no_window_before() -> None:
    windows = list(order().windows(0))
    assert len(windows) == 4
    for window in windows:
        for first in range(window.first, window.first + window.steps):
            assert next(order().windows(0, first)) == window


def test_the_order_changes_with_seed_epoch_and_window_and_with_nothing_else() -> None:
    one = drawn(order(), 0)
    assert one == drawn(order(), 0)
    assert one != drawn(order(), 1)
    assert one != drawn(order(seed=4), 0)
    assert one != drawn(order(window_rows=70), 0)


def test_rows_are_shuffled_across_the_row_groups_of_a_window_and_no_further() -> None:
    the_order = order()
    for window in the_order.windows(0):
        cuts = the_order.cut(window, np.arange(BATCH))
        assert sum(len(cut.rows) for cut in cuts) == window.steps * BATCH
        assert window.rows - window.steps * BATCH < BATCH
        assert window.steps * BATCH <= 50
    first = list(the_order.windows(0))[1]
    shards = [[name.split("/")[0] for name in step] for step in drawn(the_order, 0)[first.first :][: first.steps]]
    assert len(set(chain(*shards))) > 1
    assert sum(len(set(step)) > 1 for step in shards) > len(shards) // 2, "steps mix the row groups"


def test_windows_follow_one_another_and_differ_by_one_step_at_most() -> None:
    windows = list(order(sizes=(500,), window_rows=60).windows(0))
    assert all(one.first + one.steps == two.first for one, two in pairwise(windows))
    assert max(w.steps for w in windows) - min(w.steps for w in windows) <= 1
    assert all(one.start + one.rows == two.start for one, two in pairwise(windows))
    assert windows[-1].start + windows[-1].rows == 500


def test_rows_of_a_cut_rise_so_that_a_row_group_is_read_once_from_front_to_back() -> None:
    the_order = order()
    for window in the_order.windows(0):
        cuts = the_order.cut(window, np.arange(3))
        assert len({cut.group.shard for cut in cuts}) == len(cuts)
        assert all((np.diff(cut.rows) > 0).all() for cut in cuts)


def test_a_window_is_as_large_as_its_encoded_images_may_be() -> None:
    groups = order().groups
    assert fit_window(groups, 500, BATCH) == 50
    assert fit_window(groups, 1, BATCH) == BATCH, "a batch at least"


def dataset(rows: int) -> Dataset:
    return Dataset(
        folder=Folder("/data"),
        digest="sha256:0",
        items=rows,
        counts={},
        splits={"train": rows, "val": 0, "test": 0},
        classes=("a", "b"),
        image_shape=(64, 64, 3),
        shards=(),
        manifest="",
        manifest_digest="",
    )


def test_the_feed_is_chosen_by_the_size_of_the_decoded_split() -> None:
    small, large = choose_feed(dataset(1_000), 8 * 10**9), choose_feed(dataset(1_000_000), 8 * 10**9)
    assert small.feed == "memory"
    assert large.feed == "stream"
    assert large.reason == (
        "the train split decodes to 12.3 GB, training.cache_limit is 8.0 GB: "
        "it is streamed from storage, decoded every epoch anew"
    )
    assert choose_feed(dataset(1_000), 64 * 64 * 3 * 1_000).feed == "memory"
    assert choose_feed(dataset(1_000), 64 * 64 * 3 * 1_000 - 1).feed == "stream"


def test_who_asks_for_a_feed_gets_it() -> None:
    for wanted in ("memory", "stream"):
        choice = choose_feed(dataset(1_000), 1, wanted)
        assert (choice.feed, f"training.feed is {wanted}" in choice.reason) == (wanted, True)
