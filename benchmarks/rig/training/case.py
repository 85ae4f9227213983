"""What is measured, and what one process of a contestant is told.

    case = Case(net="cnn", batch=64)
    spec = Spec(program="loop", case=case, world=2, rank=0)
    Spec.parse(spec.text()) == spec

Without startup_ray, so that a peer's environment can import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CLASSES = 10
LEARNING_RATE = 1e-3
"""Of Adam, for all."""
WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Net:
    what: str
    shape: tuple[int, int, int]
    steps_per_call: int
    """Inside one tf.function call; fewer where a step is long, so that a call does not outlast a window."""
    rows: int
    """Of a data set for those that cannot do without one."""
    max_rate: int
    """Images per second; windows that are counted in epochs are shorter on a faster machine."""


NETS = {
    "cnn": Net(
        what="Conv32-MaxPool-Flatten-Dense128-Dense10 on 28x28x1",
        shape=(28, 28, 1),
        steps_per_call=16,
        rows=131_072,
        max_rate=20_000,
    ),
    "resnet": Net(
        what="residual net of 3 stages, 16-32-64, on 64x64x3",
        shape=(64, 64, 3),
        steps_per_call=2,
        rows=8_192,
        max_rate=2_000,
    ),
}
"""Layer by layer in `nets.py`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    net: str
    batch: int
    """Rows of each worker in a step."""

    @property
    def name(self) -> str:
        return f"{self.net}, {self.batch} rows per worker"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Of one worker process."""

    program: str
    """One of `programs.PROGRAMS`."""
    case: Case
    world: int
    """Workers that it synchronises with, itself included."""
    rank: int
    """Among the workers of the contestant; its core too."""
    connect: Mapping[str, Any] = field(default_factory=dict)
    """Further options of `sync.connect`."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the job's `training`."""

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Spec:
        fields = json.loads(text)
        return cls(**fields | {"case": Case(**fields["case"])})
