"""GPUs as far as they can be tested without one: the session's Ray is told of two that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from startup_ray.dataset import Dataset
from startup_ray.errors import ClusterError
from startup_ray.storage import Folder
from startup_ray.trainers.backend import choose_transport, worker_environment
from tests.ray.training import MARKS, await_until, fit

pytestmark = MARKS


@pytest.mark.parametrize("share", [{"gpus_per_worker": 1}, {"gpus_per_worker": 0.5, "gpu_memory": 10**9}])
def test_gpus_that_tensorflow_does_not_see_are_told_and_never_replaced_by_cpus(
    dataset: Dataset, tmp_path: Path, share: dict[str, Any]
) -> None:
    with pytest.raises(ClusterError, match="given a worker a GPU, but TensorFlow sees none there") as caught:
        fit(dataset, Folder(str(tmp_path)), **share)
    assert "gpus_per_worker to 0" in caught.value.hint
    assert Folder(str(tmp_path)).list("checkpoints") == []
    await_until(lambda: ray.available_resources().get("GPU") == 2)


def test_more_gpus_than_there_are_is_told_before_anything_waits(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"asks for 3 CPUs and 3 GPUs .*, the cluster has 4 CPUs and 2 GPUs"):
        fit(dataset, Folder(str(tmp_path)), workers=3, gpus_per_worker=1)
    with pytest.raises(ClusterError, match=r"1\.25 GPUs"):
        fit(dataset, Folder(str(tmp_path)), workers=5, gpus_per_worker=0.25, gpu_memory=10**9)


@ray.remote(num_gpus=0.5, runtime_env={"env_vars": worker_environment(1, 0.5)})
def shared_gpu() -> list[int]:
    return list(map(int, ray.get_gpu_ids()))


def test_workers_that_share_a_gpu_are_given_one_each_and_its_number() -> None:
    found = ray.get([shared_gpu.remote() for _ in range(4)])
    assert all(len(numbers) == 1 for numbers in found)


def test_gpus_are_hidden_from_workers_on_cpus_and_left_to_ray_otherwise() -> None:
    assert worker_environment(2)["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(2, 1.0)


@pytest.mark.parametrize(
    ("wanted", "nodes", "gpus", "chosen"),
    [
        ("auto", ["a", "a"], 0.0, "memory"),
        ("auto", ["a", "b"], 0.0, "ring"),
        ("auto", ["a", "b"], 1.0, "nccl"),
        ("auto", ["a", "a"], 1.0, "nccl"),
        ("auto", ["a", "a"], 0.5, "memory"),
        ("ring", ["a", "a"], 0.0, "ring"),
        ("ring", ["a", "b"], 1.0, "ring"),
        ("memory", ["a", "b"], 0.0, "ring"),
        ("nccl", ["a", "b"], 1.0, "nccl"),
    ],
)
def test_the_transport_is_chosen_by_where_workers_are(wanted: str, nodes: list[str], gpus: float, chosen: str) -> None:
    assert choose_transport(wanted, nodes, gpus).partition(":")[0] == chosen


def test_every_group_meets_under_another_name() -> None:
    assert choose_transport("auto", ["a", "a"], 0.0) != choose_transport("auto", ["a", "a"], 0.0)
