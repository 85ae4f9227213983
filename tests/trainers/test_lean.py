"""In a process of its own, because it is about what is loaded there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import json, sys
from startup_ray.trainers.lean import load_keras
keras = load_keras()
loaded = [name for name in ("sklearn", "matplotlib", "keras", "tensorflow") if name in sys.modules]
import matplotlib.figure, sklearn.linear_model, tensorflow
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
print(json.dumps([loaded, load_keras() is keras, tuple(model(tensorflow.zeros((3, 2))).shape)]))
"""


def test_keras_is_loaded_without_what_it_only_offers() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["keras", "tensorflow"], True, [3, 1]]
