"""What is searched, and how long: the same for all. Without startup_ray: a peer's environment imports it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

RATES = (1e-4, 1e-1)
"""Least and most of the learning rate, whose logarithm is drawn evenly."""
OPTIMIZERS = ("adam", "sgd")
BATCHES = (32, 128)
FILTERS = (8, 32)
"""Of the only convolution."""
DENSE = (32, 128)
REDUCTION = 3
"""One of so many goes on, with all that stop trials early."""


@dataclass(frozen=True, kw_only=True)
class Size:
    trials: int = 24
    nested: int = 4
    """Trials that are runs of Ray Train each."""
    epochs: int = 9
    """Of a trial, at most."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a program is to do, as one word of its command line."""

    folder: str
    """Its own; `ANSWER` and `NOTES` are written there."""
    size: Size
    seed: int = 0
    storage: str = ""
    """Of startup_ray's dataset."""
    slots: int = 1
    arrays: str = ""
    """An .npz file of images and labels, for those without startup_ray."""
    epochs: int | None = None
    """Of all trials together, for those that go on until then."""

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Order:
        plain: dict[str, Any] = json.loads(text)
        return cls(**plain | {"size": Size(**plain["size"])})
