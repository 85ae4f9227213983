"""A run on a cluster that loses a node and gets another; a process of its own, since it has a Ray of its own.

Prints one JSON document: how many workers there were, by the steps at which that changed, and the training's result.
"""

from __future__ import annotations

import json
import sys
import threading
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

STEPS = 180
TRAINING = TrainingOptions(
    steps=STEPS, global_batch=35, optimizer="sgd", learning_rate=0.05, steps_per_call=1, checkpoint_every_steps=5
)
STEP_S = 0.25


def main(place: str) -> None:
    launch.RESIZE_S = 4.0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        sys.stdout.write(json.dumps(_train(place, cluster, nodes)) + "\n")
    finally:
        ray.shutdown()
        cluster.shutdown()


def _train(place: str, cluster: Any, nodes: list[Any]) -> dict[str, Any]:
    seen: list[tuple[int, int]] = []
    """Step and workers, at each change."""
    changes = iter([lambda: cluster.remove_node(nodes[1], allow_graceful=False), lambda: cluster.add_node(num_cpus=1)])

    def on_progress(item: TrainProgress | DecodeProgress) -> None:
        if not isinstance(item, TrainProgress):
            return
        if not seen or seen[-1][1] != len(item.pids):
            seen.append((item.step, len(item.pids)))
        # The nodes change 10 steps after the workers have.
        if len(seen) <= 2 and item.step >= seen[-1][0] + 10 and item.step < STEPS:
            change = next(changes, None) if len(done) < len(seen) else None
            if change is not None:
                done.append(item.step)
                threading.Thread(target=change).start()

    done: list[int] = []
    dataset = dataset_in(Folder(f"{place}/dataset"))
    scaling = ScalingOptions(workers=(1, 2), max_failures=3)
    model = PythonOptions(build="tests.nets:slow", args={"seconds": STEP_S})
    spec = preflight(dataset, model=model, training=TRAINING, scaling=scaling, seed=7)
    folder = Folder(f"{place}/run")
    with hold(folder) as lease:
        document = launch.train(dataset, folder, lease.fence, spec=spec, scaling=scaling, on_progress=on_progress)
    return {"seen": seen, "changed_at": done, "document": document}


if __name__ == "__main__":
    main(sys.argv[1])
