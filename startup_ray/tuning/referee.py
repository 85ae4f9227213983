"""Between the workers of a trial, wherever they run, and the one who decides whether it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import ray

LOOK_S = 0.2
"""How often to see whether the training has ended without another word."""


class Referee:
    """Lives where the decision arrives."""

    def __init__(self) -> None:
        made: Any = ray.remote(_Desk).options(num_cpus=0)
        self.actor = made.remote()
        self._next: Any = None

    def next_line(self, is_training: Callable[[], bool]) -> Mapping[str, Any] | None:
        """Metrics of the next epoch; None when the training has ended."""
        self._next = self._next or self.actor.next_line.remote()
        while True:
            was_training = is_training()
            ready, _ = ray.wait([self._next], timeout=LOOK_S)
            if ready:
                line: Mapping[str, Any] = ray.get(self._next)
                self._next = None
                return line
            if not was_training:
                return None

    def answer(self, line: Mapping[str, Any], *, goes_on: bool) -> None:
        ray.get(self.actor.answer.remote(int(line["epoch"]), goes_on))

    def close(self) -> None:
        ray.kill(self.actor)


def ask(desk: Any, rank: int, line: Mapping[str, Any]) -> bool:
    """Called by each worker after an epoch; it waits for the answer, which is the same for all."""
    goes_on: bool = ray.get(desk.ask.remote(rank, dict(line)))
    return goes_on


class _Desk:
    """An actor. Workers that were started anew ask again about an epoch and are answered the same."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._told: set[int] = set()
        self._answers: dict[int, asyncio.Future[bool]] = {}

    async def ask(self, rank: int, line: Mapping[str, Any]) -> bool:
        epoch = int(line["epoch"])
        if rank == 0 and epoch not in self._told:
            self._told.add(epoch)
            self._lines.put_nowait(line)
        return await asyncio.shield(self._answer(epoch))

    async def next_line(self) -> Mapping[str, Any]:
        return await self._lines.get()

    async def answer(self, epoch: int, goes_on: bool) -> None:
        self._answer(epoch).set_result(goes_on)

    def _answer(self, epoch: int) -> asyncio.Future[bool]:
        if epoch not in self._answers:
            self._answers[epoch] = asyncio.get_running_loop().create_future()
        return self._answers[epoch]
