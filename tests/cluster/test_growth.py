"""Clusters that grow when a job asks for more than they have, and shrink again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from startup_ray.reach import Limits, limits_in, limits_of
from tests.cluster.growing import MOST, Head

ONE = {"CPU": 1.0, "GPU": 1.0}
CONFIG = {
    "max_workers": 6,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 8}},
        "one": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8},
        "four": {"resources": {"CPU": 2, "GPU": 4}, "max_workers": 2},
    },
}


def limits() -> Limits:
    found = limits_in(yaml.safe_dump(CONFIG), {"CPU": 4.0})
    assert found is not None
    return found


def test_the_largest_cluster_is_of_the_nodes_that_hold_most_workers() -> None:
    assert limits().room(ONE) == 2 * 2 + 4 * 1
    assert limits().total("GPU", ONE) == 2 * 4 + 4 * 1
    assert limits().room({"CPU": 2.0}) == 2 + 6 * 4
    assert limits().room({"CPU": 1.0, "GPU": 8.0}) == 0


def test_the_configuration_may_say_nothing() -> None:
    assert limits_in("", {}) is None
    own_machines = {"max_workers": 2, "available_node_types": {"local.cluster.node": {"resources": {}}}}
    found = limits_in(yaml.safe_dump(own_machines), {})
    assert found is not None
    assert not found.is_known
    assert found.room(ONE) == math.inf


def test_a_platform_may_report_its_limits() -> None:
    from ray.core.generated import autoscaler_pb2

    messages: Any = autoscaler_pb2
    groups = [messages.NodeGroupConfig(resources={"CPU": 8, "GPU": 2}, max_count=count) for count in (3, -1)]
    assert limits_of(messages.ClusterConfig(node_group_configs=groups[:1])).room(ONE) == 6
    assert limits_of(messages.ClusterConfig(node_group_configs=groups)).room(ONE) > 10**9


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with Head() as started:
        yield started


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_cluster_grows_for_a_job_and_shrinks_after_it(head: Head) -> None:
    """To reach: 45 s from nothing to two nodes and back, on a machine with nothing else to do."""
    told = head.told("grow")
    asks = "training asks for {0} GPUs ({0} workers of 1 CPU, 1 GPU), the cluster has 0 and may grow to 8"
    assert told["refused"] == asks.format(16)
    assert told["to_come"] == MOST
    assert told["room"] == told["nodes"] == 2
    assert told["lines"][0] == asks.format(2) + ": waiting for nodes"
    assert told["lines"][1].startswith("the cluster has grown from 0 CPUs and 0 GPUs to 4 CPUs and 2 GPUs in ")
    assert told["gone_s"] < 120


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_cluster_that_does_not_grow_is_told(head: Head) -> None:
    told = head.told("fail")
    assert "in 900 s of waiting for nodes the cluster still has 0 CPUs and 0 GPUs" in told["late"]
    assert told["unseen"].endswith("the cluster has 0 CPUs and 0 GPUs and cannot grow so far")


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_job_that_is_killed_while_it_waits_leaves_no_request(head: Head) -> None:
    watch = head.start("watch")
    assert watch.stdout is not None
    assert watch.stdout.readline() == "nobody asks\n"
    job = head.start("wait")
    assert watch.stdout.readline() == "somebody asks\n"
    job.terminate()  # by SIGKILL, from its keeper
    job.communicate()
    _, err = watch.communicate(timeout=120)
    assert watch.returncode == 0, err[-3000:]
