"""Samples of a finished run as files.

document = publish(run, out, count=64, label="3", seed=0)       # 000000.png ... and grid.png
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from startup_ray.errors import UsageError
from startup_ray.runs import BEST_MODEL, CLASSES, JOB, read_classes
from startup_ray.storage import Folder
from startup_ray.trainers.gan.sampling import BATCH_ROWS, draw, grid, png, wanted_images
from startup_ray.trainers.scoring import load_model, use_one_thread

GRID = "grid.png"
MOST_IN_GRID = 400


def publish(run: Folder, out: Folder, *, count: int, label: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Write `count` images of the run's generator into a folder, and the first of them as one picture.

    Args:
        label: the class that is asked for; without one, a generator that is asked for classes makes each in turn.
        seed: the same seed gives the same images.

    Raises:
        UsageError: no generator is there, or it is not asked for such a class.
        StorageError: the folder cannot be written.
    """
    if count < 1:
        raise UsageError("at least one image is made", where=f"--count {count}")
    if out.exists(JOB):
        raise UsageError("this is the folder of a run", where=str(out), hint="samples need a folder of their own")
    use_one_thread()
    model = load_model(run, BEST_MODEL)
    names = read_classes(run) if len(model.inputs) > 1 else ()
    wanted = wanted_images(seed, count, int(model.inputs[0].shape[-1]), _classes(names, label, run))
    shown: list[np.ndarray] = []
    files = []
    for start in range(0, count, BATCH_ROWS):
        for i, image in enumerate(draw(model, wanted, start, min(start + BATCH_ROWS, count)), start):
            files.append(f"{i:06d}.png")
            out.put_whole(files[-1], png(image))
            if i < MOST_IN_GRID:
                shown.append(image)
    out.put_whole(GRID, png(grid(np.stack(shown), _columns(len(shown), len(names) if label is None else 0))))
    labels = [] if wanted.classes is None else [names[place] for place in wanted.classes]
    return {"run": str(run), "out": str(out), "grid": out.path(GRID), "files": files, "labels": labels, "seed": seed}


def _classes(names: tuple[str, ...], label: str | None, run: Folder) -> np.ndarray | None:
    if label is None:
        return np.arange(len(names)) if names else None
    if not names:
        hint = "train it with model.conditional: true"
        raise UsageError("this generator is not asked for a class", where=str(run), hint=hint)
    if label not in names:
        hint = f"its classes: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
        raise UsageError(f"no class is called {label!r}", where=run.path(CLASSES), hint=hint)
    return np.array([names.index(label)])


def _columns(count: int, classes: int) -> int:
    """One for each class if they are few, so that a column is a class."""
    return classes if 1 < classes <= 20 else math.ceil(math.sqrt(count))
