"""What is measured: a size of the originals and a size of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

QUALITY = 95
"""Of the JPEG images that both sides store."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Originals of `source` (width, height) to squares of `target` pixels, with the figures to reach (issue 3)."""

    source: tuple[int, int]
    target: int
    max_cpu: float
    """CPU time per image, ours to the peer's."""
    min_rate: float | None
    """Images per second, ours to the peer's."""

    @property
    def name(self) -> str:
        width, height = self.source
        return f"{width}x{height} to {self.target}" if width != height else f"{width} to {self.target}"


CASES = {
    "256-64": Case(source=(256, 256), target=64, max_cpu=0.5, min_rate=2.5),
    "640-64": Case(source=(640, 480), target=64, max_cpu=0.5, min_rate=3.5),
    "640-256": Case(source=(640, 480), target=256, max_cpu=0.8, min_rate=None),
}
MIN_LIMIT = 0.6
"""Share of the limit (fetch alone + decode alone) to reach per core."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One run of one side."""

    case: Case
    urls: Sequence[str]
    folder: Path
    """Empty, for everything that the run writes."""
    env: Mapping[str, str]
    """Whole environment of its processes."""
