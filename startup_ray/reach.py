"""How far a cluster may grow: what its autoscaler was told, where that can be seen.

limits = find_limits()                      # None: nothing makes this cluster grow
limits.room({"CPU": 1, "GPU": 1})           # workers of which the largest cluster has room for so many
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import yaml

log = logging.getLogger("startup_ray")

LOOK_S = 60.0
"""For a process on the head to start and answer."""
_HEAD = "node:__internal_head__"
_V1_STATUS = "__autoscaling_status"


@dataclass(frozen=True)
class NodeType:
    resources: Mapping[str, float]
    most: float
    """Nodes of it at the same time."""


@dataclass(frozen=True)
class Limits:
    """How far a cluster may grow."""

    types: tuple[NodeType, ...] = ()
    most: float = sys.maxsize
    """Nodes of all types together."""
    is_known: bool = True
    """Whether the autoscaler's configuration can be seen from here; that of KubeRay cannot."""
    head: Mapping[str, float] = field(default_factory=dict)
    """What the head adds."""

    def room(self, each: Mapping[str, float]) -> float:
        """Workers with these resources that the largest cluster has room for, if nothing else runs there."""
        if not self.is_known:
            return math.inf
        return fitting(self.head, each) + sum(
            count * fitting(node.resources, each)
            for node, count in self._largest(each)
            if fitting(node.resources, each)
        )

    def total(self, name: str, each: Mapping[str, float]) -> float:
        """What it then has of a resource."""
        return self.head.get(name, 0.0) + sum(
            count * node.resources.get(name, 0.0) for node, count in self._largest(each)
        )

    def _largest(self, each: Mapping[str, float]) -> list[tuple[NodeType, float]]:
        """Node types and how many of each: what holds most workers first."""
        left, found = self.most, []
        for node in sorted(self.types, key=lambda node: fitting(node.resources, each), reverse=True):
            found.append((node, min(node.most, left)))
            left -= found[-1][1]
        return found


def fitting(resources: Mapping[str, float], each: Mapping[str, float]) -> int:
    """Workers that a node has room for."""
    return min(math.floor(resources.get(name, 0) / amount + 1e-9) for name, amount in each.items())


def may_grow() -> bool:
    """Whether an autoscaler watches over this cluster; a cheap look at what it has told the head."""
    from ray.experimental.internal_kv import _internal_kv_get

    names: Any = ray._raylet
    space = names.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    if _internal_kv_get(names.GCS_AUTOSCALER_V2_ENABLED_KEY.encode(), namespace=space) == b"1":
        return True
    status = json.loads(_internal_kv_get(_V1_STATUS) or b"{}")
    types = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    # Version 1 reports on any cluster; where there is nothing to scale, each node is a type of its own.
    return any(not name.startswith("node_") for name in types)


def find_limits() -> Limits | None:
    """How far this cluster may grow; None if nothing makes it grow."""
    from ray._private.state import state

    reported = state.get_cluster_config()
    if reported is not None and reported.node_group_configs:
        return limits_of(reported)
    if not may_grow():
        return None
    head: Any = next((node for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"]), None)
    found = _ask_head(head["NodeID"]) if head else None
    return Limits(is_known=False) if found is None else limits_in(found, head["Resources"])


def limits_of(reported: Any) -> Limits:
    """Those of Ray's `ClusterConfig`, which managed platforms report; no autoscaler of Ray itself does."""

    def number(value: float) -> float:
        return value if value >= 0 else sys.maxsize  # -1: without limit

    groups = reported.node_group_configs
    types = [NodeType({k: number(v) for k, v in one.resources.items()}, number(one.max_count)) for one in groups]
    return Limits(tuple(types))


def limits_in(text: str, head: Mapping[str, float]) -> Limits | None:
    """Those of an autoscaler's configuration, prepared as `ray up` leaves it on the head; None for no configuration.

    Args:
        head: resources of the head, which no type adds to.
    """
    config = yaml.safe_load(text) if text else None
    if not config:
        return None
    kinds = config.get("available_node_types") or {}
    most = config.get("max_workers", sys.maxsize)
    types = tuple(
        NodeType({name: float(amount) for name, amount in (kind.get("resources") or {}).items()}, count)
        for name, kind in kinds.items()
        if name != config.get("head_node_type") and (count := kind.get("max_workers", most)) > 0
    )
    # What a type of own machines has is not known before one of them has joined.
    return Limits(types, most, is_known=all(node.resources for node in types), head=head)


def _ask_head(node: str) -> str | None:
    """`configuration` there; None also if it does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there: Any = NodeAffinitySchedulingStrategy(node, soft=False)
    ask: Any = ray.remote(configuration).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    try:
        answer: str | None = ray.get(ask.remote(), timeout=LOOK_S)
    except ray.exceptions.RayError as error:
        log.debug("the head does not tell how far the cluster may grow: %s", error)
        return None
    return answer


def configuration() -> str | None:
    """What this cluster's autoscaler was started with, if it runs here; empty for none, None if it cannot be seen."""
    address = ray.get_runtime_context().gcs_address
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
            if f"--gcs-address={address}" not in words or not any("/autoscaler/" in word for word in words):
                continue
            path = next((word.partition("=")[2] for word in words if word.startswith("--autoscaling-config=")), "")
            return Path(path).expanduser().read_text() if path else ""
        except OSError:  # it has just ended, or belongs to somebody else
            continue
    return None
