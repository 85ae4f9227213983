"""What is seen of a GAN while it trains: a grid of samples, their distance from real images, and alarms.

Called by all workers together. Each draws whole batches of the same noise, features are put together, and all work out
the same numbers from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from startup_ray.errors import TrainingError
from startup_ray.fidelity import Moments, frechet_distance, modes
from startup_ray.job import GanOptions
from startup_ray.neighbourhoods import memorisation, neighbourhoods
from startup_ray.runs import SAMPLES
from startup_ray.trainers.cache import Rows
from startup_ray.trainers.gan.judge import Judge
from startup_ray.trainers.gan.program import Gan
from startup_ray.trainers.gan.sampling import BATCH_ROWS, Wanted, as_in_training, draw, flat, grid, png, wanted_images
from startup_ray.trainers.messages import Emit, Findings, Note

GRID_ROWS, GRID_COLUMNS = 8, 10
MOST_REAL = 10_000
"""Real images that samples are compared with while training; an evaluation looks at more."""
MOST_PIXELS = 2**26
"""Of real images that are searched for copies."""
COPIES_LOOKED_AT = 200
COLLAPSE, DIVERGENCE, COPIES = 0.5, 3.0, 0.5
"""Alarms: coverage or entropy below this share of the best so far, FID above so many times it, and share of copies."""
NEIGHBOURS = 5


@dataclass
class Watch:
    """Looks every so many epochs, and after the last."""

    program: Gan
    options: GanOptions
    judge: Judge | None
    train: Rows
    val: Rows
    epochs: int
    emit: Emit
    best: dict[str, float] = field(default_factory=dict)
    """Of each measure, so far in this attempt."""

    def __post_init__(self) -> None:
        labels = np.asarray(self.train.labels)
        asked = self.program.num_classes
        frequent = as_in_training(labels, self.program.seed) if asked else None
        columns = np.tile(np.arange(GRID_COLUMNS) % max(asked, 1), GRID_ROWS) if asked else None
        size = self.program.recipe.noise
        self._wanted = wanted_images(self.program.seed, self.options.watch_samples, size, frequent)
        self._shown = wanted_images(self.program.seed, GRID_ROWS * GRID_COLUMNS, size, columns)
        self._real: np.ndarray | None = None

    def __call__(self, epoch: int) -> Findings:
        """`val/fid`, `val/coverage`, `val/entropy` and `val/copies`, as far as there is somebody to judge; a grid."""
        if epoch % self.options.watch_every_epochs and epoch != self.epochs:
            return Findings()
        scores = self._judged() if self.judge is not None else {}
        for alarm in self._alarms(scores):
            self._raise(alarm, epoch)
        files = {}
        if self.program.sync.rank == 0:
            shown = draw(self.program.model, self._shown, 0, len(self._shown))
            files[f"{SAMPLES}/{epoch:06d}.png"] = png(grid(shown, GRID_COLUMNS))
        return Findings(scores=scores, files=files)

    def _judged(self) -> dict[str, float]:
        assert self.judge is not None
        real = self._features_of_real()
        images, features, predicted = self._drawn(self._wanted, self.judge)
        scores = {"val/fid": frechet_distance(Moments.of(features), Moments.of(real))}
        if min(len(features), len(real)) > NEIGHBOURS:
            scores["val/coverage"] = neighbourhoods(features, real, k=NEIGHBOURS)["coverage"]
        if self.judge.num_classes > 1:
            scores["val/entropy"] = modes(predicted, self.judge.num_classes).entropy
        if len(self.val) and images.size:
            most = min(MOST_REAL, max(MOST_PIXELS // images[0].size, 1))
            sets = [flat(part) for part in (images, self.train.images[:most], self.val.images[:most])]
            scores["val/copies"] = memorisation(*sets)["copies"] or 0.0
        return scores

    def _features_of_real(self) -> np.ndarray:
        """Of the first training images; each worker looks at its share, once."""
        if self._real is None:
            assert self.judge is not None
            count = min(len(self.train), MOST_REAL)
            found = np.zeros([count, self.judge.size])
            for here in self._shares(count):
                found[here] = self.judge(self.train.images[here])[0]
            self._real = self._together(found)
        return self._real

    def _drawn(self, wanted: Wanted, judge: Judge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first images uint8 [COPIES_LOOKED_AT, H, W, C], features and predicted classes of all."""
        features, predicted = np.zeros([len(wanted), judge.size]), np.zeros(len(wanted), np.int64)
        first = np.zeros([min(COPIES_LOOKED_AT, len(wanted)), *self.train.images.shape[1:]], np.int64)
        for here in self._shares(len(wanted)):
            images = draw(self.program.model, wanted, here.start, here.stop)
            features[here], predicted[here] = judge(images)
            if here.start == 0:
                first[:] = images[: len(first)]
        return self._together(first), self._together(features), self._together(predicted)

    def _shares(self, count: int) -> Sequence[slice]:
        """This worker's batches, whole ones."""
        sync = self.program.sync
        starts = range(sync.rank * BATCH_ROWS, count, sync.world * BATCH_ROWS)
        return [slice(start, min(start + BATCH_ROWS, count)) for start in starts]

    def _together(self, own: np.ndarray) -> np.ndarray:
        """What each worker has filled in part, whole: sums with zero keep every bit."""
        return np.asarray(self.program.sync.sum(tf.constant(own)))

    def _alarms(self, scores: dict[str, float]) -> list[str]:
        found = []
        for name in ("val/coverage", "val/entropy"):
            if name in scores:
                best = self.best[name] = max(self.best.get(name, 0.0), scores[name])
                if scores[name] < COLLAPSE * best:
                    found.append(f"samples lose their variety: {name} is {scores[name]:.3f}, it was {best:.3f}")
        if "val/fid" in scores:
            best = self.best["val/fid"] = min(self.best.get("val/fid", np.inf), scores["val/fid"])
            if scores["val/fid"] > DIVERGENCE * best:
                found.append(f"samples get worse: val/fid is {scores['val/fid']:.1f}, it was {best:.1f}")
        if scores.get("val/copies", 0.0) > COPIES:
            found.append(f"{scores['val/copies']:.0%} of the samples are close to copies of training images")
        return found

    def _raise(self, alarm: str, epoch: int) -> None:
        if self.options.on_alarm == "stop":
            hint = "the best generator so far is kept; model.on_alarm: warn goes on"
            raise TrainingError(f"{alarm}, after epoch {epoch}", where="model.on_alarm", hint=hint)
        if self.program.sync.rank == 0:
            self.emit(Note(f"epoch {epoch}: {alarm}", is_warning=True))
