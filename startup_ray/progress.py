"""What a stage tells while it works."""

from __future__ import annotations

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


def ignore(_: Progress) -> None:
    """Progress that nobody watches."""
