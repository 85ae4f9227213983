"""What to compare on: real images of the run's dataset, or random ones if it is gone; for a generator, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from startup_ray.dataset import Dataset, read_dataset
from startup_ray.errors import StorageError, UsageError
from startup_ray.runs import DATASET, read_json
from startup_ray.storage import Folder, open_folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.gan.sampling import wanted_images

SEED = 0
PREFERRED = ("test", "val", "train")


@dataclass(frozen=True)
class Samples:
    inputs: tuple[np.ndarray, ...]
    """Of the model, N rows each; images float32 [N, H, W, C] in [0, 255] are whole numbers."""
    told: str
    """Where they come from, in words."""

    def __len__(self) -> int:
        return len(self.inputs[0])


def take_noise(size: int, classes: int, number: int) -> Samples:
    """What a generator makes `number` images from; each class in turn if it is asked for one."""
    wanted = wanted_images(SEED, number, size, np.arange(classes) if classes else None)
    inputs = (wanted.noise,) if wanted.classes is None else (wanted.noise, wanted.classes)
    return Samples(inputs, "random noise")


def take_samples(run: Folder, shape: tuple[int, int, int], number: int) -> Samples:
    """At most `number` images spread over the test split of the run's dataset, else val, else train."""
    dataset = _dataset_of(run)
    splits = [split for split in PREFERRED if dataset and dataset.splits.get(split)]
    if dataset is None or dataset.image_shape != shape or not splits:
        random = np.random.default_rng(SEED).integers(0, 256, (number, *shape))
        return Samples((random.astype(np.float32),), "random pixels: the run's dataset is gone")
    rows = open_split(dataset, splits[0])
    places = np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(np.int64))
    return Samples((rows.images[places].astype(np.float32),), f"the {splits[0]} split of {dataset.folder}")


def _dataset_of(run: Folder) -> Dataset | None:
    try:
        place = read_json(run, DATASET).get("dataset")
        return read_dataset(open_folder(place)) if place else None
    except (UsageError, StorageError):
        return None
