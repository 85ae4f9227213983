"""What a run leaves behind while it trains: metrics, best and last model, checkpoints, progress.

All workers record the same; rank 0 alone writes, in a thread of its own (`writer.py`). Whatever only rank 0 can meet
(storage that is full, a run that was taken over) is told to the others before anybody goes on, so that no worker
waits for one that has left.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from startup_ray.errors import TrainingError
from startup_ray.job import TrainingOptions
from startup_ray.lease import Fence
from startup_ray.merit import is_better
from startup_ray.runs import BEST_MODEL, CLASSES, LAST_MODEL, METRICS
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint, tensorboard
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.loop import Plan, Position, Speed, diverged
from startup_ray.trainers.messages import Emit, Findings, Note, TrainProgress
from startup_ray.trainers.scaling import Step, advise, all_reduce_s
from startup_ray.trainers.state import saved
from startup_ray.trainers.writer import Writer

Validate = Callable[[int], Findings]
"""The number of the epoch -> what a look at the model after it found."""
Files = Callable[[], Mapping[str, bytes]]

TELL_S = 0.5
"""Between two words of progress at least; each costs the workers CPU time."""


class Recorder:
    """Keeps the books of one attempt: metrics, best and last model, checkpoints, progress."""

    def __init__(
        self,
        *,
        folder: Folder,
        fence: Fence,
        options: TrainingOptions,
        monitor: str,
        classes: Sequence[str],
        plan: Plan,
        program: Any,
        validate: Validate,
        state: State,
        writer: Writer,
        emit: Emit,
        keeps_models: bool = True,
        waits: bool = False,
    ) -> None:
        """
        Args:
            keeps_models: write the best and the last model.
            waits: go on after an epoch only when its metrics are on storage.
        """
        self._keeps_models, self._waits = keeps_models, waits
        self._folder, self._fence, self._writer, self._emit = folder, fence, writer, emit
        self._options, self._monitor, self._plan = options, monitor, plan
        self._classes = json.dumps(list(classes), ensure_ascii=False).encode()
        self._program, self._validate = program, validate
        self._sync = program.sync
        self._best, self._last = state.best, state.last
        self._lines: list[dict[str, Any]] = []
        self._times: list[float] = []
        self._attempt = self._sync.on_rank_0(lambda: _next_attempt(folder)) or 0
        self._pids = tuple(int(pid) for pid in self._sync.gather(np.array([os.getpid()]))[:, 0])
        self._speed = Speed(options.global_batch)
        self._emitted = 0.0
        self._epoch_began = time.perf_counter()
        self._longest_save_s = 0.0
        self._step: Step | None = None

    def on_chunk(self, position: Position, count: int, seconds: float, waited: float) -> None:
        self._speed.add(count, seconds, waited)
        now = time.perf_counter()
        if now - self._emitted >= TELL_S:
            self._emitted = now
            self._tell(position)

    def on_epoch(self, position: Position) -> None:
        """Validate, then have the attempt's metrics written, and the model if it is the best so far."""
        with self._program.averaged():
            found = self._validate(position.epoch)
        line = self._last = self._line(position, found.scores)
        self._lines.append(line)
        self._times.append(time.time())
        is_best = is_better(line, self._best, self._monitor)
        if is_best:
            self._best = line
        metrics = partial(_metrics, self._attempt, tuple(self._lines), tuple(self._times))
        self._write(lambda: {**found.files, **(self._best_model() if is_best else {})}, metrics)
        if self._waits:
            self._sync.on_rank_0(self._writer.flush)
        self._tell(position, line)
        if self._step is None and self._speed.is_warm:
            self._step = self._measure()
            self._say(Note(advise(self._step)))

    @property
    def last(self) -> Mapping[str, Any]:
        """Metrics of the last whole epoch."""
        return self._last

    def is_over(self, position: Position) -> bool:
        """Whether the best epoch lies `early_stopping` epochs back; never without a val split."""
        patience = self._options.early_stopping
        over = patience is not None and bool(self._best) and position.epoch - self._best["epoch"] >= patience
        if over and position.step < self._plan.steps:
            self._say(Note(f"no better epoch by {self._monitor} for {patience}: stopped after {position.epoch}"))
        return over

    def on_save(self, position: Position) -> None:
        """See that all workers hold the same finite weights, then have a checkpoint written."""
        began = time.perf_counter()
        if not self._sync.all_equal(self._program.weights_digest()):
            raise TrainingError(
                f"workers hold different weights at step {position.step}",
                where=str(self._folder),
                hint="please report this; the last good checkpoint is kept",
            )
        if not self._program.is_finite():
            raise diverged(f"weights are not finite after step {position.step}")
        self._sync.on_rank_0(lambda: self._writer.put(self._checkpoint(position)))
        self._longest_save_s = max(self._longest_save_s, time.perf_counter() - began)

    def finish(self) -> dict[str, Any]:
        """See all written, the last model too.

        Returns:
            workers, epochs, steps, metrics, best_epoch, images_per_s, weights_digest, and `checkpoint_wait_s`: the
            longest that training has stood still for a checkpoint.
        """
        self._write(lambda: self._model(LAST_MODEL) | ({} if self._best else self._best_model()))
        self._sync.on_rank_0(self._writer.close)
        not_metrics = ("epoch", "step", "seconds", "images_per_s")
        return {
            "workers": self._sync.world,
            "epochs": self._last["epoch"],
            "steps": self._last["step"],
            "metrics": {name: value for name, value in self._last.items() if name not in not_metrics},
            "best_epoch": self._best.get("epoch", self._last["epoch"]),
            "images_per_s": self._last["images_per_s"],
            "checkpoint_wait_s": round(self._longest_save_s, 3),
            "step_s": _rounded(self._step),
            "weights_digest": self._program.weights_digest(),
        }

    def _measure(self) -> Step:
        total_s, input_s = self._speed.step_s
        return Step(
            workers=self._sync.world,
            global_batch=self._options.global_batch,
            total_s=total_s,
            input_s=input_s,
            all_reduce_s=all_reduce_s(self._sync, self._program.messages()),
        )

    def _line(self, position: Position, scores: Mapping[str, float]) -> dict[str, Any]:
        seconds = time.perf_counter() - self._epoch_began
        self._epoch_began = time.perf_counter()
        return {
            "epoch": position.epoch,
            "step": position.step,
            **self._program.train_scores(position.sums, self._plan.steps_of(position.epoch - 1)),
            **scores,
            "images_per_s": round(self._speed.images_per_s, 1),
            "seconds": round(seconds, 3),
        }

    def _checkpoint(self, position: Position) -> Callable[[], None]:
        """What writes the state as it is now; its arrays are copies."""
        state = State(position=position, best=self._best, last=self._last, arrays=self._program.arrays())
        return partial(checkpoint.save, self._folder, self._fence, state, keep=self._options.keep)

    def _best_model(self) -> dict[str, bytes]:
        with self._program.averaged():
            return self._model(BEST_MODEL)

    def _model(self, name: str) -> dict[str, bytes]:
        if not self._keeps_models:
            return {}
        return {CLASSES: self._classes, name: saved(self._program.model)}

    def _write(self, files: Files, more: Files = dict) -> None:
        """Have files written in the background: `more`, made there, and then `files`, whose content is that of now."""
        self._sync.on_rank_0(lambda: self._writer.put(partial(_put_all, self._folder, self._fence, files(), more)))

    def _tell(self, position: Position, line: dict[str, float] | None = None) -> None:
        steps = (position.step - 1) % self._plan.steps_per_epoch + 1
        self._say(
            TrainProgress(
                step=position.step,
                steps=self._plan.steps,
                epoch=position.epoch,
                epochs=self._plan.epochs,
                loss=position.sums[0] / steps,
                images_per_s=self._speed.images_per_s,
                eta_s=(self._plan.steps - position.step) * self._speed.step_s[0],
                metrics=line or {},
                pids=self._pids,
            )
        )

    def _say(self, item: TrainProgress | Note) -> None:
        if self._sync.rank == 0:
            self._emit(item)


def _rounded(step: Step | None) -> dict[str, float]:
    """Where the time of a step went; empty for an attempt that saw no whole epoch."""
    if step is None:
        return {}
    parts = {"total": step.total_s, "input": step.input_s, "compute": step.compute_s, "all_reduce": step.all_reduce_s}
    return {name: round(value, 6) for name, value in parts.items()}


def _put_all(folder: Folder, fence: Fence, files: Mapping[str, bytes], more: Files) -> None:
    fence.check()
    for name, data in {**more(), **files}.items():
        folder.put_whole(name, data)


def _metrics(attempt: int, lines: Sequence[Mapping[str, Any]], times: Sequence[float]) -> dict[str, bytes]:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return {
        f"{METRICS}/{attempt:04d}.jsonl": text.encode(),
        tensorboard.name_of(attempt): tensorboard.encode(lines, times),
    }


def _next_attempt(folder: Folder) -> int:
    return max((int(name.split(".")[0]) for name in folder.list(METRICS)), default=0) + 1
