from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.errors import UsageError
from startup_ray.job import ApplicationOptions, CnnOptions
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


@pytest.mark.ray
@pytest.mark.parametrize(("shape", "classes"), [((5, 7, 3), 2), ((28, 28, 1), 10), ((64, 33, 3), 4)])
def test_a_residual_net_takes_any_image(shape: tuple[int, int, int], classes: int) -> None:
    from startup_ray.trainers.models import build_cnn

    options = CnnOptions(filters=(4, 8, 8), dense=0, residual=True, batch_norm=True)
    model = build_cnn(shape, classes, options)
    assert model(np.zeros((2, *shape), np.float32)).shape == (2, classes)
    assert model.layers[-3].output.shape[1:] == feature_shape(shape, options)
    assert sum(type(layer).__name__ == "Add" for layer in model.layers) == 3


@pytest.mark.ray
@pytest.mark.parametrize("name", ["VGG16", "MobileNetV2", "DenseNet121", "EfficientNetB0"])
def test_an_applications_own_preprocessing_is_found_by_trying(name: str) -> None:
    """One of each kind: BGR less a mean, [-1, 1], a mean and deviation per channel, none."""
    import keras

    from startup_ray.trainers.applications import _find, _preprocessing, preprocess

    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    function = _preprocessing(_find(name))
    inputs = keras.Input((4, 4, 3))
    outputs = preprocess(inputs, function)
    found = images if outputs is inputs else np.asarray(keras.Model(inputs, outputs)(images))
    np.testing.assert_allclose(found, np.asarray(function(images.copy())), atol=1e-3)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "MobileNetv2"}, "no 'MobileNetv2'\n  did you mean 'MobileNetV2'"),
        ({"name": "MobileNetV2", "args": {"alfa": 1}}, "unexpected keyword argument 'alfa'"),
        ({"name": "MobileNetV2", "weights": "none.h5"}, "no such file: none.h5"),
    ],
)
def test_an_application_that_cannot_be_built_is_told(options: dict[str, Any], told: str) -> None:
    from startup_ray.trainers.applications import build_application

    with pytest.raises(UsageError) as caught:
        build_application((32, 32, 3), 3, ApplicationOptions(**options))
    assert told in str(caught.value)


@pytest.mark.ray
def test_transparency_is_for_cnns_and_for_models_of_ones_own() -> None:
    from startup_ray.trainers.applications import build_application
    from startup_ray.trainers.models import build_cnn

    with pytest.raises(UsageError, match="no transparency") as caught:
        build_application((32, 32, 4), 3, ApplicationOptions(name="MobileNetV2"))
    assert "a cnn" in caught.value.hint
    assert build_cnn((8, 8, 4), 3, CnnOptions(filters=(4,))).input_shape == (None, 8, 8, 4)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")  # Keras 3.15, of its own files
def test_weights_of_a_local_file_are_taken(tmp_path: Path) -> None:
    import keras

    from startup_ray.trainers.applications import build_application

    options = ApplicationOptions(name="MobileNet", args={"alpha": 0.25})
    keras.utils.set_random_seed(1)
    first = build_application((32, 32, 3), 3, options)
    first.layers[-2].save_weights(tmp_path / "base.weights.h5")
    second = build_application(
        (32, 32, 3), 5, options.model_copy(update={"weights": str(tmp_path / "base.weights.h5")})
    )
    for one, other in zip(first.layers[-2].weights, second.layers[-2].weights, strict=True):
        assert (np.asarray(one) == np.asarray(other)).all()
    wrong = options.model_copy(update={"args": {"alpha": 0.5}, "weights": str(tmp_path / "base.weights.h5")})
    with pytest.raises(UsageError, match="does not fit"):
        build_application((32, 32, 3), 5, wrong)
