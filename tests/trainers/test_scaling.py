from __future__ import annotations

import pytest

from startup_ray.trainers.scaling import Step, advise


def step(*, workers: int = 2, batch: int = 64, compute: float = 10, waits: float = 0, all_reduce: float = 0) -> Step:
    """Times in ms."""
    return Step(
        workers=workers,
        global_batch=batch,
        total_s=(compute + waits + all_reduce) / 1000,
        input_s=waits / 1000,
        all_reduce_s=all_reduce / 1000,
    )


def test_a_good_step_is_told_without_advice() -> None:
    assert advise(step(compute=18, waits=1, all_reduce=1)) == (
        "2 workers: 3,200 images/s; a step takes 20.0 ms: input 5%, compute 90%, all-reduce 5%"
    )
    assert advise(step(workers=1, compute=64)).startswith("1 worker: 1,000 images/s;")


def test_too_much_all_reduce_names_the_batch_that_would_do() -> None:
    text = advise(step(compute=10, all_reduce=10))
    assert text.endswith(
        "; all-reduce takes 50% of a step: raise training.global_batch to at least 256, or use 1 worker, "
        "which would be as fast or faster"
    )


@pytest.mark.parametrize("all_reduce", [4, 10, 39, 100])
def test_at_the_batch_that_is_named_all_reduce_is_small(all_reduce: float) -> None:
    text = advise(step(compute=10, all_reduce=all_reduce))
    batch = int(text.split("at least ")[1].split(",")[0])
    compute = 10 * batch / 64
    assert all_reduce <= 0.25 * (compute + all_reduce)
    assert all_reduce > 0.25 * (compute / 2 + all_reduce)


def test_one_worker_is_no_advice_where_it_would_be_slower() -> None:
    assert "1 worker" not in advise(step(workers=4, compute=10, all_reduce=20))


def test_no_absurd_batch_is_advised() -> None:
    text = advise(step(workers=8, batch=1024, compute=10, all_reduce=50))
    assert "global_batch" not in text
    assert "fewer workers" in text


def test_waiting_for_images_has_an_advice_of_its_own() -> None:
    assert "waiting for images takes 50% of a step" in advise(step(compute=10, waits=10))


def test_a_step_without_length_divides_by_nothing() -> None:
    assert "takes 0.0 ms" in advise(step(compute=0))
