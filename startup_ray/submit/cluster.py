"""Whether a cluster can do what is asked of it, before anything is sent there."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from startup_ray.errors import ClusterError
from startup_ray.submit.jobs_api import JobsApi

HEAD = "node:InternalHead"
"""A resource of the head alone, as the status spells it."""

log = logging.getLogger("startup_ray")


def require_able(api: JobsApi, needs: Mapping[str, float], *, any_version: bool = False) -> dict[str, Any]:
    """
    Args:
        needs: Ray's resources, of all nodes together.
        any_version: whether other versions of Ray and Python than here will do.

    Returns:
        Its status, as `JobsApi.resources` has it.

    Raises:
        ClusterError: nobody answers, the token is not taken, versions differ, or resources are missing in a cluster
            that does not grow.
    """
    _require_versions(api, any_version=any_version)
    status = api.resources()
    missing = _missing(status, needs)
    if missing:
        raise ClusterError(missing, where=api.cluster.url, hint="lower scaling, or join nodes to the cluster")
    return status


def driver_cpus(status: Mapping[str, Any], manifest: str) -> float:
    """CPUs that the driver is to take: one where it serves samples to its own node, and the head has none for them."""
    nodes = (status.get("loadMetricsReport") or {}).get("usageByNode") or {}
    heads = [usage for usage in nodes.values() if HEAD in usage]
    return 1.0 if manifest.startswith("sample:") and heads and not any("CPU" in usage for usage in heads) else 0.0


def _require_versions(api: JobsApi, *, any_version: bool) -> None:
    ray, python = api.versions()
    here = {"Ray": version("ray"), "Python": platform.python_version()}
    there = {"Ray": ray, "Python": python}
    # Pickles of two patch releases of Python are the same; those of two of Ray are not promised to be.
    differ = ray != here["Ray"] or python.split(".")[:2] != here["Python"].split(".")[:2]
    if not differ:
        return
    text = f"the cluster has {_both(there)}, and here is {_both(here)}"
    if not any_version:
        raise ClusterError(text, where=api.cluster.url, hint="install the same here, or --any-version")
    log.warning("%s", text)


def _both(versions: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {text}" for name, text in versions.items())


def _missing(status: Mapping[str, Any], needs: Mapping[str, float]) -> str:
    """What a cluster that cannot grow lacks; empty where it has all, may get it, or tells nothing."""
    usage = (status.get("loadMetricsReport") or {}).get("usage")
    if not usage:
        return ""
    total = {name: float((usage.get(name) or [0, 0])[1]) for name in needs}
    lacking = [name for name, amount in needs.items() if amount > total[name] + 1e-9]
    if not lacking:
        return ""
    text = "; ".join(f"the job asks for {needs[name]:g} {name}s, the cluster has {total[name]:g}" for name in lacking)
    if _may_grow(status):
        log.warning("%s now; its autoscaler does not tell here how far it may grow", text)
        return ""
    return f"{text}, and nothing makes it grow"


def _may_grow(status: Mapping[str, Any]) -> bool:
    """Nodes that no autoscaler has started are each a type of their own, named after the node."""
    types = (status.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}
    return any(kind != f"node_{node}" for node, kind in types.items())
