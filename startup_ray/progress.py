"""What a stage tells while it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """How far a stage is. Each stage has a value of its own with more in it."""

    @property
    def done(self) -> int:
        """Items, steps or rows so far."""

    @property
    def total(self) -> int:
        """Of how many."""

    @property
    def text(self) -> str:
        """One line for people."""


@dataclass(frozen=True)
class Part:
    """So many of something are done."""

    done: int
    total: int
    what: str

    @property
    def text(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.what}"


def ignore(_: Progress) -> None:
    """Progress that nobody watches."""
