"""A run on a cluster that loses a node and gets another; a process of its own, since it has a Ray of its own.

Prints one JSON document: how many workers there were, by the steps at which that changed, and the training's result.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.cluster_utils import Cluster

from startup_ray.job import PythonOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import hold
from startup_ray.storage import Folder
from startup_ray.trainers import launch
from startup_ray.trainers.messages import DecodeProgress, TrainProgress
from startup_ray.trainers.preflight import preflight
from tests.ray.training import dataset_in

STEPS = 160
TRAINING = TrainingOptions(
    steps=STEPS, global_batch=35, optimizer="sgd", learning_rate=0.05, steps_per_call=1, checkpoint_every_steps=5
)
STEP_S = 0.25


@dataclass
class Changes:
    """What is seen of the workers, and when the nodes are to change: 10 steps after the workers have."""

    seen: list[tuple[int, int]] = field(default_factory=list)
    """Step and workers, at each change."""
    made: list[int] = field(default_factory=list)
    wanted: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, item: TrainProgress | DecodeProgress) -> None:
        if not isinstance(item, TrainProgress):
            return
        if not self.seen or self.seen[-1][1] != len(item.pids):
            self.seen.append((item.step, len(item.pids)))
        if len(self.made) < min(len(self.seen), 2) and item.step >= self.seen[-1][0] + 10:
            self.made.append(item.step)
            self.wanted.release()


def main(place: str) -> None:
    launch.RESIZE_S = 4.0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    changes = Changes()
    try:
        with ThreadPoolExecutor(1) as pool:  # nodes can be added in the main thread alone
            training = pool.submit(_train, place, changes)
            if changes.wanted.acquire(timeout=60):
                cluster.remove_node(nodes[1], allow_graceful=False)
            if changes.wanted.acquire(timeout=90):
                cluster.add_node(num_cpus=1)
            document = training.result()
        found = {"seen": changes.seen, "changed_at": changes.made, "document": document}
        sys.stdout.write(json.dumps(found) + "\n")
    finally:
        ray.shutdown()
        cluster.shutdown()


def _train(place: str, changes: Changes) -> dict[str, Any]:
    dataset = dataset_in(Folder(f"{place}/dataset"))
    scaling = ScalingOptions(workers=(1, 2), max_failures=3)
    model = PythonOptions(build="tests.nets:slow", args={"seconds": STEP_S})
    spec = preflight(dataset, model=model, training=TRAINING, scaling=scaling, seed=7)
    folder = Folder(f"{place}/run")
    with hold(folder) as lease:
        return launch.train(dataset, folder, lease.fence, spec=spec, scaling=scaling, on_progress=changes)


if __name__ == "__main__":
    main(sys.argv[1])
