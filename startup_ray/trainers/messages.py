"""What workers tell the one who watches, wherever they run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """What rank 0 tells while it trains, a few times a second at most."""

    step: int
    steps: int
    epoch: int
    """Epochs done."""
    epochs: int
    loss: float
    """Mean training loss of the epoch so far."""
    images_per_s: float
    eta_s: float = math.inf
    """Seconds to the end of the run at this speed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics line of an epoch that has just ended, else empty."""
    pids: tuple[int, ...] = ()
    """Process ids of the workers by rank, each on its own node."""

    @property
    def done(self) -> int:
        return self.step

    @property
    def total(self) -> int:
        return self.steps

    @property
    def text(self) -> str:
        """One line for people."""
        loss = f", loss {self.loss:.4f}" if math.isfinite(self.loss) else ""
        left = f", {duration(self.eta_s)} left" if math.isfinite(self.eta_s) and self.done < self.total else ""
        speed = f"{self.images_per_s:.0f} images/s"
        return f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}{loss}, {speed}{left}"


@dataclass(frozen=True)
class Note:
    """Something to tell people, once."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class DecodeProgress:
    """What the one worker of a node tells that decodes the images for all."""

    split: str
    done: int
    total: int

    @property
    def text(self) -> str:
        """One line for people."""
        return f"decoding {self.done:,} of {self.total:,} images of the {self.split} split"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a look at the model after an epoch found."""

    scores: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    """To be written into the run's folder; rank 0's alone count."""


Emit = Callable[[TrainProgress | DecodeProgress | Note], None]


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
