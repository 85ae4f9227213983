from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest

from startup_ray.trainers.feed import Feed, epoch_order, places_of, prefetch, share
from startup_ray.trainers.loop import Plan, chunks


def feed(rank: int = 0, world: int = 1, *, rows: int = 50, batch: int = 7) -> Feed:
    """Each image is its own row number; every fifth row has no label."""
    images = np.arange(rows, dtype=np.uint8).reshape(rows, 1, 1, 1)
    labels = np.where(np.arange(rows) % 5 == 0, -1, np.arange(rows) % 3).astype(np.int32)
    return Feed(images=images, labels=labels, global_batch=batch, seed=3, rank=rank, world=world)


def drawn(the_feed: Feed, *, k: int, start: int = 0) -> list[list[int]]:
    """Rows of each step."""
    per_epoch = the_feed.steps_per_epoch
    plan = Plan(steps=2 * per_epoch, steps_per_epoch=per_epoch, steps_per_call=k, checkpoint_every_steps=1000)
    return [step.ravel().tolist() for _, images, _ in the_feed.batches(chunks(plan, start)) for step in images]


def test_shares_cover_a_batch_without_overlap_and_differ_by_one_row() -> None:
    for world in range(1, 8):
        ends = [share(33, rank, world) for rank in range(world)]
        assert [row for low, high in ends for row in range(low, high)] == list(range(33))
        sizes = {high - low for low, high in ends}
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [2, 3, 7])
def test_workers_together_draw_what_one_worker_draws(world: int) -> None:
    alone = drawn(feed(), k=4)
    together = [drawn(feed(rank, world), k=4) for rank in range(world)]
    assert [list(chain(*parts)) for parts in zip(*together, strict=True)] == alone


@pytest.mark.parametrize("k", [1, 3, 16])
def test_rows_do_not_depend_on_steps_per_call_nor_on_where_it_starts(k: int) -> None:
    assert drawn(feed(), k=k, start=7) == drawn(feed(), k=2)[7:]


def test_an_epoch_draws_labelled_rows_once_and_drops_its_tail() -> None:
    the_feed = feed()
    assert the_feed.steps_per_epoch == 40 // 7
    first, second = drawn(the_feed, k=4)[:5], drawn(the_feed, k=4)[5:]
    rows = list(chain(*first))
    assert len(set(rows)) == len(rows) == 35
    assert all(row % 5 for row in rows)
    assert first != second


def test_labels_belong_to_their_images() -> None:
    plan = Plan(steps=5, steps_per_epoch=5, steps_per_call=2, checkpoint_every_steps=9)
    for chunk, images, labels in feed(1, 2).batches(chunks(plan, 0)):
        assert images.shape == (chunk.count, 4, 1, 1, 1)
        assert (labels == images[:, :, 0, 0, 0] % 3).all()


def test_the_order_is_a_permutation_of_seed_and_epoch() -> None:
    order = epoch_order(7, 2, 100)
    assert sorted(order) == list(range(100))
    assert (order == epoch_order(7, 2, 100)).all()
    assert (order != epoch_order(7, 3, 100)).any()
    assert (order != epoch_order(8, 2, 100)).any()


def test_prefetch_keeps_order_and_ends() -> None:
    assert list(prefetch(iter(range(100)))) == list(range(100))


def test_prefetch_raises_what_the_items_raise_after_those_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("disk is gone")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="disk is gone"):
        next(ahead)


def test_prefetch_runs_ahead_by_depth_and_leaves_no_thread() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    ahead = prefetch(items(), depth=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    ahead.close()
    assert len(made) == 5  # one taken, three ready, one in the thread's hand
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_parts_of_a_step_hold_the_same_rows_at_any_number_of_workers(world: int) -> None:
    mine = [places_of(12, rank, world, 2) for rank in range(world)]
    for part in range(2):
        halves = [np.split(places, 2)[part] for places in mine]
        assert np.concatenate(halves).tolist() == list(range(part * 6, part * 6 + 6))
