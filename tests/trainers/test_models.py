from __future__ import annotations

from typing import Any

import numpy as np
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


@pytest.mark.ray
def test_options_of_the_net_make_its_layers_and_its_losses() -> None:
    from startup_ray.trainers.models import build_cnn

    def layers(**options: Any) -> list[str]:
        return [type(layer).__name__ for layer in build_cnn((8, 8, 1), 3, CnnOptions(filters=(4,), **options)).layers]

    plain = ["InputLayer", "Rescaling", "Conv2D", "ReLU", "MaxPooling2D", "Flatten", "Dense", "Dense"]
    assert layers() == plain
    assert layers(batch_norm=True) == [*plain[:3], "BatchNormalization", *plain[3:]]
    assert layers(dropout=0.5) == [*plain[:7], "Dropout", "Dense"]
    model = build_cnn((8, 8, 1), 3, CnnOptions(filters=(4,), l2=0.5))
    kernels = [np.asarray(weight) for weight in model.trainable_variables if weight.name == "kernel"]
    assert len(kernels) == 3
    assert sum(float(loss) for loss in model.losses) == pytest.approx(
        sum(0.5 * (k**2).sum() for k in kernels), rel=1e-5
    )
