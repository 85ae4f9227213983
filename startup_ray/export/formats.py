"""The formats: how each is written, what it needs, and how it is loaded again.

form = FORMATS["onnx"]
form.write(Original(run, model, classifier((28, 28, 1))), path)
logits_of = form.load(path, classifier((28, 28, 1)))    # float32 [N, 28, 28, 1] in [0, 255] -> float32 [N, classes]
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from startup_ray.errors import UsageError
from startup_ray.runs import BEST_MODEL
from startup_ray.storage import Folder

Call = Callable[..., np.ndarray]
"""Arrays in the order of `Ends.inputs` -> the output."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What goes into a model and comes out of it, under the same names in every format."""

    inputs: dict[str, tuple[str, tuple[int, ...]]]
    """Dtype, and shape of one row."""
    output: str


def classifier(shape: tuple[int, int, int]) -> Ends:
    """Images float32 [N, H, W, C] in [0, 255] -> logits float32 [N, classes]."""
    return Ends(inputs={"images": ("float32", shape)}, output="logits")


def generator(noise: int, *, has_classes: bool) -> Ends:
    """Noise float32 [N, Z], and label int32 [N] if it has classes -> images float32 [N, H, W, C] in [0, 255]."""
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {"noise": ("float32", (noise,))}
    return Ends(inputs=inputs | ({"label": ("int32", ())} if has_classes else {}), output="images")


@dataclass(frozen=True, kw_only=True)
class Original:
    """What is exported."""

    run: Folder
    model: Any
    """As Keras has loaded it."""
    ends: Ends


@dataclass(frozen=True, kw_only=True)
class Format:
    name: str
    target: str
    """Name of its file or folder."""
    needs: tuple[str, ...]
    """Packages beside TensorFlow and Keras."""
    write: Callable[[Original, Path], None]
    load: Callable[[Path, Ends], Call]


def find_formats(names: Sequence[str], *, find: Callable[[str], Any] = find_spec) -> tuple[Format, ...]:
    """Formats by name, each once.

    Args:
        find: None for a package that is not installed.

    Raises:
        UsageError: no such format, or what it needs is not installed.
    """
    found = dict.fromkeys(names)
    for name in found:
        if name not in FORMATS:
            close = get_close_matches(name, FORMATS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(FORMATS)}"
            raise UsageError(f"no format is called {name!r}", where="--to", hint=hint)
        missing = [package for package in FORMATS[name].needs if find(package) is None]
        if missing:
            hint = "pip install 'startup_ray[export]', or leave it out of --to"
            raise UsageError(f"{name} needs packages that are not installed: {', '.join(missing)}", hint=hint)
    return tuple(FORMATS[name] for name in found)


def serving(model: Any, ends: Ends) -> Any:
    """`tf.function` of `ends.inputs` in their order -> {output: float32}."""
    import tensorflow as tf

    def answer(*inputs: Any) -> dict[str, Any]:
        found = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return {ends.output: tf.cast(found, tf.float32)}

    signature = [tf.TensorSpec([None, *shape], dtype, name=name) for name, (dtype, shape) in ends.inputs.items()]
    return tf.function(answer, input_signature=signature, autograph=False)


def _write_keras(original: Original, path: Path) -> None:
    path.write_bytes(original.run.read(BEST_MODEL))


def _load_keras(path: Path, ends: Ends) -> Call:
    import keras

    function = serving(keras.saving.load_model(path, compile=False, safe_mode=True), ends)
    return lambda *inputs: np.asarray(function(*inputs)[ends.output])


def _write_savedmodel(original: Original, path: Path) -> None:
    """By a module of our own: Keras' `export` names the ends otherwise, and writes each weight twice."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in original.model.variables]
    module.serve = serving(original.model, original.ends)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    shutil.rmtree(path / "assets", ignore_errors=True)  # made empty; an object store has no empty folders


def _load_savedmodel(path: Path, ends: Ends) -> Call:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]

    def call(*inputs: np.ndarray, _: Any = loaded) -> np.ndarray:  # weights live as long as what was loaded
        named = {name: tf.constant(values) for name, values in zip(ends.inputs, inputs, strict=True)}
        return np.asarray(function(**named)[ends.output])

    return call


def _write_onnx(original: Original, path: Path) -> None:
    """By tf2onnx's `from_function`: its `from_keras` fails, and Keras' own export gives the ends no names."""
    import tf2onnx

    function = serving(_as_float32(original.model), original.ends)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature)
    path.write_bytes(proto.SerializeToString())


def _load_onnx(path: Path, ends: Ends) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(*inputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([ends.output], dict(zip(ends.inputs, inputs, strict=True)))[0]
        return found

    return call


def _as_float32(model: Any) -> Any:
    """The same weights, computed in float32: onnxruntime refuses what tf2onnx makes of bfloat16."""
    import keras

    if not computes_in_16_bits(model):
        return model

    def wide(layer: Any) -> Any:
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=wide, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def computes_in_16_bits(model: Any) -> bool:
    """Whether a layer of a Keras model does, as with `mixed_bfloat16`."""
    return any(layer.compute_dtype in ("bfloat16", "float16") for layer in model._flatten_layers())


FORMATS = {
    form.name: form
    for form in (
        Format(name="keras", target="model.keras", needs=(), write=_write_keras, load=_load_keras),
        Format(name="savedmodel", target="savedmodel", needs=(), write=_write_savedmodel, load=_load_savedmodel),
        Format(
            name="onnx",
            target="model.onnx",
            needs=("onnx", "tf2onnx", "onnxruntime"),
            write=_write_onnx,
            load=_load_onnx,
        ),
    )
}
"""Formats by name."""
