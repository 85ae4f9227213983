from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from startup_ray.errors import UsageError

pytestmark = pytest.mark.ray


def net(classes: int = 3, *, seed: int = 0, names: str = "abc") -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, name=names[0]), keras.layers.BatchNormalization(name=names[1])]
    )
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(classes, name=names[2])(inner(inputs)))


def test_layers_are_frozen_by_pattern_nested_ones_too() -> None:
    from startup_ray.trainers.warm import freeze

    model = net()
    freeze(model, ["a", "[b]"])
    assert [weight.path.split("/")[-2] for weight in model.trainable_variables] == ["c", "c"]
    whole = net()
    freeze(whole, [whole.layers[1].name])
    assert len(whole.trainable_variables) == 2


@pytest.mark.parametrize(
    ("patterns", "told"), [(["zz*"], "no layer is called 'zz\\*'"), (["*"], "nothing is left to train")]
)
def test_a_pattern_of_no_layer_or_of_all_is_refused(patterns: list[str], told: str) -> None:
    from startup_ray.trainers.warm import freeze

    with pytest.raises(UsageError, match=told):
        freeze(net(), patterns)


def test_weights_are_taken_by_name_and_shape_and_the_rest_stays() -> None:
    from startup_ray.trainers.warm import take_weights

    model, other = net(classes=2), net(seed=1)
    top = np.asarray(model.layers[-1].kernel).copy()
    assert take_weights(model, other) == "2 of 3 layers begin with the weights of init_from; not c"
    assert (np.asarray(model.weights[0]) == np.asarray(other.weights[0])).all()
    assert (np.asarray(model.layers[-1].kernel) == top).all()


def test_weights_of_a_model_without_a_layer_in_common_are_refused() -> None:
    from startup_ray.trainers.warm import take_weights

    with pytest.raises(UsageError, match="no layer has the name and shapes") as caught:
        take_weights(net(), net(names="xyz"))
    assert all(name in caught.value.hint for name in "xyz")
