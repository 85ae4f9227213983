from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.errors import TrainingError
from startup_ray.trainers.loop import START, Chunk, Hooks, Plan, Position, Speed, chunks, run

Event = tuple[str, Position]


def plan(*, epochs: int = 3, steps: int = 10, k: int = 4, save: int = 7) -> Plan:
    return Plan(steps=epochs * steps, steps_per_epoch=steps, steps_per_call=k, checkpoint_every_steps=save)


def play(
    the_plan: Plan, start: Position = START, loss: Callable[[int], float] = lambda step: 0.1 * step
) -> list[Event]:
    """Every event of a run in which a step's loss is a function of its number and its second sum is 1."""
    events: list[Event] = []

    def batches() -> Any:
        for chunk in chunks(the_plan, start.step):
            yield chunk, np.arange(chunk.first, chunk.first + chunk.count), None

    hooks = Hooks(
        on_chunk=lambda position, *_: events.append(("chunk", position)),
        on_epoch=lambda position: events.append(("epoch", position)),
        on_save=lambda position: events.append(("save", position)),
    )
    run(start, lambda steps, *_: np.array([[loss(int(step)), 1.0] for step in steps], np.float32), batches(), hooks)
    return events


def of_kind(kind: str, events: list[Event]) -> list[Position]:
    return [position for name, position in events if name == kind]


def test_chunks_end_where_epochs_and_saves_do() -> None:
    assert [(chunk.first, chunk.count, chunk.saves) for chunk in chunks(plan(epochs=1), 0)] == [
        (0, 4, False),
        (4, 3, True),
        (7, 3, True),
    ]


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 20), st.integers(1, 20), st.integers(0, 40))
def test_chunks_cover_what_is_left_once(epochs: int, steps: int, k: int, save: int, start: int) -> None:
    the_plan = plan(epochs=epochs, steps=steps, k=k, save=save)
    done = [step for chunk in chunks(the_plan, start) for step in range(chunk.first, chunk.first + chunk.count)]
    assert done == list(range(start, the_plan.steps))
    for chunk in chunks(the_plan, start):
        assert 1 <= chunk.count <= k
        end = chunk.first + chunk.count
        assert chunk.epoch == chunk.first // steps == (end - 1) // steps
        assert chunk.ends_epoch == (end % steps == 0)
        assert chunk.saves == (end % steps == 0 or end % save == 0)


@pytest.mark.parametrize("k", [1, 7, 16])
def test_saves_and_epochs_do_not_depend_on_steps_per_call(k: int) -> None:
    events, expected = play(plan(k=k)), play(plan(k=3))
    for kind in ("epoch", "save"):
        assert of_kind(kind, events) == of_kind(kind, expected)
    assert [position.step for position in of_kind("epoch", events)] == [10, 20, 30]
    assert [position.step for position in of_kind("save", events)] == [7, 10, 14, 20, 21, 28, 30]


def test_a_run_resumed_from_any_save_is_the_run_never_stopped() -> None:
    whole = play(plan())
    for saved in of_kind("save", whole):
        rest = play(plan(), saved)
        for kind in ("epoch", "save"):
            assert of_kind(kind, rest) == [p for p in of_kind(kind, whole) if p.step > saved.step]


def test_an_epochs_sums_count_every_step_once_and_begin_anew() -> None:
    epochs = of_kind("epoch", play(plan()))
    assert [position.sums[1] for position in epochs] == [10.0, 10.0, 10.0]
    assert of_kind("save", play(plan()))[1] == Position(step=10, epoch=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step_and_saves_nothing_after(bad: float) -> None:
    with pytest.raises(TrainingError, match="loss of step 13 is not finite"):
        play(plan(), loss=lambda step: bad if step == 12 else 0.5)


def test_a_chunk_says_its_epoch() -> None:
    assert list(chunks(plan(epochs=2, steps=2, k=5, save=9), 2)) == [
        Chunk(epoch=1, first=2, count=2, ends_epoch=True, saves=True)
    ]


def test_speed_leaves_out_the_first_chunk_once_there_is_another() -> None:
    speed = Speed(rows_per_step=10)
    assert (speed.images_per_s, speed.step_s) == (0, (0, 0))
    found = []
    for chunk in ((4, 8.0, 4.0), (4, 0.5, 0.25), (1, 0.5, 0.0)):
        speed.add(*chunk)
        found.append((speed.images_per_s, speed.step_s))
    assert found == [(5, (2, 1)), (80, (0.125, 0.0625)), (50, (0.2, 0.05))]


def test_the_wait_for_rows_is_told_apart() -> None:
    now = [0.0]
    told: list[tuple[int, float, float]] = []

    def batches() -> Iterator[tuple[Chunk, Any, Any]]:
        for chunk in chunks(Plan(steps=4, steps_per_epoch=4, steps_per_call=2, checkpoint_every_steps=9), 0):
            now[0] += 1.0
            yield chunk, None, None

    def steps(*_: Any) -> np.ndarray:
        now[0] += 0.5
        return np.ones((2, 2))

    hooks = Hooks(
        on_chunk=lambda _, count, seconds, waited: told.append((count, seconds, waited)),
        on_epoch=lambda _: None,
        on_save=lambda _: None,
    )
    run(START, steps, batches(), hooks, clock=lambda: now[0])
    assert told == [(2, 1.5, 1.0), (2, 1.5, 1.0)]


def test_it_is_over_when_it_is_told_so_at_the_end_of_an_epoch_and_not_before() -> None:
    saved: list[int] = []
    hooks = Hooks(
        on_chunk=lambda *_: None,
        on_epoch=lambda _: None,
        on_save=lambda position: saved.append(position.step),
        is_over=lambda position: position.epoch >= 2,
    )
    the_plan = plan(epochs=5)

    def batches(start: int) -> Iterator[tuple[Chunk, Any, Any]]:
        return ((chunk, None, None) for chunk in chunks(the_plan, start))

    end = run(START, lambda *_: np.ones((1, 2)), batches(0), hooks)
    assert (end.step, end.epoch, saved[-1]) == (20, 2, 20)
    assert run(end, lambda *_: np.ones((1, 2)), batches(20), hooks) == end


def test_a_last_epoch_may_be_a_part_of_one() -> None:
    short = Plan(steps=25, steps_per_epoch=10, steps_per_call=4, checkpoint_every_steps=100)
    assert (short.epochs, [short.steps_of(epoch) for epoch in range(3)]) == (3, [10, 10, 5])
    ends = [chunk.first + chunk.count for chunk in chunks(short, 0) if chunk.ends_epoch]
    assert ends == [10, 20, 25]
