from __future__ import annotations

import pytest

from startup_ray.errors import UsageError
from startup_ray.job import CnnOptions
from startup_ray.trainers.models import feature_shape


def test_default_net_leaves_13_by_13_of_28_by_28() -> None:
    assert feature_shape((28, 28, 1), CnnOptions()) == (13, 13, 32)


def test_a_smallest_image_that_fits() -> None:
    assert feature_shape((10, 10, 3), CnnOptions(filters=(4, 8))) == (1, 1, 8)


@pytest.mark.parametrize(("size", "number"), [((3, 28), 1), ((9, 9), 2), ((28, 28), 4)])
def test_too_small_images_are_named_with_the_way_out(size: tuple[int, int], number: int) -> None:
    with pytest.raises(UsageError, match=f"{size[0]}x{size[1]} pixels.*after number {number}") as caught:
        feature_shape((*size, 1), CnnOptions(filters=(4,) * 5))
    assert "ingest.image.size" in caught.value.hint
