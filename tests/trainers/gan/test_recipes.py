from __future__ import annotations

import pytest

from startup_ray.errors import UsageError
from startup_ray.job import GanOptions
from startup_ray.trainers.gan.recipes import DCGAN, R3GAN, base_of, recipe_of


@pytest.mark.parametrize(
    ("size", "base"),
    [
        ((28, 28), (7, 7, 2)),
        ((32, 32), (4, 4, 3)),
        ((56, 56), (7, 7, 3)),
        ((64, 64), (4, 4, 4)),
        ((96, 96), (6, 6, 4)),
        ((128, 128), (4, 4, 5)),
        ((8, 8), (4, 4, 1)),
        ((28, 56), (7, 14, 2)),
    ],
)
def test_sizes_that_are_a_small_base_times_a_power_of_two(size: tuple[int, int], base: tuple[int, int, int]) -> None:
    assert base_of((*size, 1)) == base


@pytest.mark.parametrize(
    ("size", "hint"),
    [((30, 30), "size is 32"), ((4, 4), "size is 8"), ((1, 1), "size is 8"), ((99, 99), "size is 96")],
)
def test_other_sizes_are_refused_with_the_nearest(size: tuple[int, int], hint: str) -> None:
    with pytest.raises(UsageError, match="times a power of two") as caught:
        base_of((*size, 3))
    assert hint in caught.value.hint


def test_sides_that_differ_in_their_doublings_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        base_of((28, 30, 3))
    with pytest.raises(UsageError, match="without transparency"):
        base_of((32, 32, 4))
    assert "28 and 32" in caught.value.hint
    with pytest.raises(UsageError):
        base_of((8, 128, 3))


def test_a_job_has_the_last_word() -> None:
    assert recipe_of(GanOptions()) == R3GAN
    assert recipe_of(GanOptions(recipe="dcgan")) == DCGAN
    found = recipe_of(GanOptions(recipe="dcgan", width=8, beta1=0.0, gamma=0.5))
    assert (found.width, found.beta1, found.gamma, found.noise, found.batch_norm) == (8, 0.0, 0.5, 100, True)
