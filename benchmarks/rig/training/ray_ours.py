"""startup_ray as users run it: `launch.train` on a dataset, with validation, metrics and checkpoints.

    python -m rig.training.ray_ours SPEC SECONDS FOLDER FIFO

The window is from the end of the first epoch to that of the last. The speed is the run's own (`exit.json`), which
leaves out what is done between epochs; CPU time includes it, and Ray.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from rig.training.case import CLASSES, LEARNING_RATE, NETS, WORKERS, Spec
from rig.training.dataset import written
from rig.training.nets import FOR_JOB
from rig.training.words import BEGIN, END, SPEED, tell
from startup_ray.job import PythonOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import hold
from startup_ray.runs import EXIT, read_json
from startup_ray.session import connect
from startup_ray.storage import open_folder
from startup_ray.trainers import launch
from startup_ray.trainers.messages import TrainProgress
from startup_ray.trainers.preflight import preflight


class Watch:
    """Tells where epochs end."""

    def __init__(self, fifo: str, epochs: int) -> None:
        self.seconds = 0.0
        """Of the window."""
        self._fifo, self._epochs = fifo, epochs

    def __call__(self, item: Any) -> None:
        if not isinstance(item, TrainProgress):
            return
        if item.metrics and item.epoch in (1, self._epochs):
            tell(self._fifo, BEGIN if item.epoch == 1 else END)
        if item.metrics and item.epoch > 1:
            self.seconds += item.metrics["seconds"]


def main() -> None:
    spec, seconds, place, fifo = Spec.parse(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
    net = NETS[spec.case.net]
    epochs = 1 + math.ceil(seconds * net.max_rate / net.rows)
    options = TrainingOptions(
        epochs=epochs,
        global_batch=spec.case.batch * WORKERS,
        learning_rate=LEARNING_RATE,
        steps_per_call=net.steps_per_call,
        **spec.training,
    )
    watch = Watch(fifo, epochs)
    dataset, folder = written(Path(place), net), open_folder(str(Path(fifo).parent / "run"))
    assert len(dataset.classes) == CLASSES
    model = PythonOptions(build=FOR_JOB, args={"name": spec.case.net})
    scaling = ScalingOptions(workers=WORKERS, max_failures=0, **spec.connect)
    with connect(), hold(folder) as lease:
        wanted = preflight(dataset, model=model, training=options, scaling=scaling, seed=0)
        launch.train(dataset, folder, lease.fence, spec=wanted, scaling=scaling, on_progress=watch)
    images = (epochs - 1) * (net.rows // options.global_batch) * options.global_batch
    rate = read_json(folder, EXIT)["images_per_s"]
    tell(fifo, SPEED, images=images, images_per_s=rate, whole_images_per_s=images / watch.seconds)


if __name__ == "__main__":
    main()
