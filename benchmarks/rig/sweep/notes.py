"""What a program leaves: an answer, and a line for each epoch that a search has trained, with its time.

Without startup_ray and TensorFlow: a peer's environment imports it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER, NOTES = "answer.json", "notes.jsonl"


def note(folder: str, accuracy: float) -> None:
    """Write down that an epoch is over; several processes may. A line is one short write at the end (write(2))."""
    line = json.dumps({"at": time.time(), "accuracy": accuracy}) + "\n"
    file = os.open(Path(folder, NOTES), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def answer(folder: str, document: Mapping[str, Any]) -> None:
    Path(folder, ANSWER).write_text(json.dumps(document))


def read_answer(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / ANSWER).read_text())
    return found


@dataclass(frozen=True)
class Search:
    """Epochs of all trials in the order in which they ended: seconds since the command began, validation accuracy."""

    epochs: tuple[tuple[float, float], ...]

    @classmethod
    def read(cls, folder: Path, began: float) -> Search:
        lines = [json.loads(line) for line in (folder / NOTES).read_text().splitlines()]
        return cls(tuple(sorted((line["at"] - began, line["accuracy"]) for line in lines)))

    @property
    def best(self) -> float:
        return max(accuracy for _, accuracy in self.epochs)

    def until(self, level: float) -> tuple[int, float] | None:
        """Epochs and seconds until the first model that is as good as this; None if there never was one."""
        for count, (at, accuracy) in enumerate(self.epochs, 1):
            if accuracy >= level:
                return count, at
        return None
