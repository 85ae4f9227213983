"""A sweep on a cluster that loses a node with a trial at work and gets another; a process with a Ray of its own.

Leaves one JSON document, with what the sweep tells and the nodes by what becomes of them. Each trial leaves a file in
`nodes/` of its folder for each node that it has run on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from startup_ray.runs import put_json
from startup_ray.storage import Folder
from startup_ray.tuning.journal import Trial
from startup_ray.tuning.trial import Terms, Turns
from tests.ray.sweeping import job_with, replayed, run
from tests.ray.training import dataset_in

TRIALS, EPOCHS = 6, 9
LAST = 3
"""Epochs of a trial on the node that goes: there it waits for its end."""
WORDS = (f"sweep.trials={TRIALS}", f"training.epochs={EPOCHS}", "sweep.scheduler=none", "sweep.slots=2")
LIMIT_S = 120
SIGNS, TOLD = "signs", "told.json"


def train(terms: Terms, trial: Trial, place: Folder, mark: int) -> tuple[int, Turns]:
    """A replayed trial that waits for what is to happen.

    On the node that goes it waits for its end; on the one that stays later ones wait for a trial on the one that comes.
    """
    epochs, turns = replayed(terms, trial, place, mark)
    signs, node = Path(terms.folder.path(SIGNS)), ray.get_runtime_context().get_node_id()
    stays, goes = json.loads((signs / "nodes").read_text())

    def held() -> Turns:
        put_json(place, f"nodes/{node}", {})
        if node not in (stays, goes):
            (signs / "used").touch()
        elif node == stays and trial.number >= TRIALS // 2:
            _await_that((signs / "used").exists)
        while True:
            try:
                line = next(turns)
            except StopIteration:
                return {}
            if line["epoch"] == LAST and node == goes:
                (signs / "held").touch()
                _await_that(lambda: False)
            yield line

    return epochs, held()


def main(place: str, port: str, agent: str) -> None:
    lean = {"include_dashboard": False, "object_store_memory": 80_000_000}
    ports = {"gcs_server_port": int(port), "dashboard_agent_listen_port": int(agent)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **ports, **lean})
    stays, goes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    folder, signs = Folder(f"{place}/sweep"), Path(place, "sweep", SIGNS)
    signs.mkdir(parents=True)
    (signs / "nodes").write_text(json.dumps([stays.node_id, goes.node_id]))
    try:
        with ThreadPoolExecutor(1) as pool:  # nodes can be added in the main thread alone
            dataset = dataset_in(Folder(f"{place}/dataset"))
            sweep = pool.submit(run, dataset, folder, job_with(*WORDS), trains=train)
            _await_that(lambda: (signs / "held").exists() or sweep.done())
            cluster.remove_node(goes, allow_graceful=False)
            comes = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
            document = sweep.result()
        nodes = {"stays": stays.node_id, "goes": goes.node_id, "comes": comes.node_id}
        Path(place, TOLD).write_text(json.dumps({"document": document, "nodes": nodes}))  # Ray prints to stdout too
    finally:
        ray.shutdown()
        cluster.shutdown()


def _await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
