"""A job as manifests for KubeRay 1.7: plain values in, what `kubectl create -f` takes out.

    config = job_config(name="pets", text=Path("pets.yaml").read_text())
    job = ray_job(name="pets", argv=["startup-ray", "run", JOB_FILE], workers=2, cpus_per_worker=4, gpus_per_worker=1,
                  image="registry.example.com/startup_ray:gpu", claim="startup-ray")
    print(to_yaml([config, job]))

The cluster is the job's own: it starts with it, asks for a token, and is gone after it. A lost cluster is followed by
another, where the job goes on from the storage on `claim`. What the job stands on (the claim, the token, who may talk
to whom) is in cluster/kuberay.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

RAY_VERSION = "2.60.0"
"""Written out: without it the operator starts no cluster that asks for a token."""
JOB_FILE = "/etc/startup_ray/job.yaml"
"""Where a job file lies that is brought by `job_config`."""
STORAGE = "/mnt/startup_ray"
"""Where the claim is mounted, in every pod."""
SCRATCH = "/scratch"
TOKEN_SECRET = "startup-ray-token"  # noqa: S105 - the name of a secret, not one
SERVICE_ACCOUNT = "startup-ray"
LABELS = {"app.kubernetes.io/part-of": "startup-ray"}
"""By which the policies of cluster/kuberay know our pods; `app.kubernetes.io/name` is the operator's own."""

BACKOFF_LIMIT = 2
DEADLINE_S = 24 * 60 * 60
KEPT_S = 60
"""How long a cluster is kept after its job: GPUs that do nothing."""
HEAD_CPUS = 2
GIB_PER_CPU = 4
MAX_NAME = 47
"""The operator appends 6 characters for the cluster, and 10 more for its services, of 63."""
USER = 1000
NOTICES_DEATH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Of a head that knows a host is gone after some 10 s, instead of a minute."""


def ray_job(
    *,
    name: str,
    argv: Sequence[str],
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    image: str,
    claim: str,
    driver_cpus: float = 0.0,
) -> dict[str, Any]:
    """A RayJob on a cluster of its own, large enough for `workers` that train together.

    Args:
        name: of the job; made into one that Kubernetes allows.
        argv: the command, each argument as it is meant; `JOB_FILE` among them is mounted from `job_config`.
        gpus_per_worker: below 1, workers share a GPU and its pod.
        claim: of storage that every pod mounts at `STORAGE` and that outlives the cluster.
        driver_cpus: of a worker's pod that the command takes; 0 runs it on the head, which has no CPU to give and so
            cannot serve the samples.
    """
    label = kubernetes_name(name)
    place = _Place(image=image, claim=claim, config=label if JOB_FILE in argv else "")
    pods, resources = _shared_out(workers, cpus_per_worker, gpus_per_worker, spare=1 + driver_cpus)
    head = _pod("ray-head", _resources(cpus=HEAD_CPUS, gpus=0), place, env=NOTICES_DEATH)
    worker = _pod("ray-worker", resources, place)
    spec = {
        "submissionMode": "HTTPMode",  # by the operator itself: no pod of its own, and no log that ends before the job
        "entrypoint": shlex.join(argv),
        **({"entrypointNumCpus": driver_cpus} if driver_cpus else {}),
        "backoffLimit": BACKOFF_LIMIT,
        "activeDeadlineSeconds": DEADLINE_S,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_S,
        "rayClusterSpec": _cluster(head, worker, pods),
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": label, "labels": LABELS}, "spec": spec}


def job_config(*, name: str, text: str) -> dict[str, Any]:
    """The ConfigMap that brings a job file to `JOB_FILE`."""
    metadata = {"name": kubernetes_name(name), "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"job.yaml": text}}


def kubernetes_name(name: str) -> str:
    """A job's name as a DNS-1035 label that a RayJob may have: names that are cut stay different."""
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if not label[:1].isalpha():
        label = f"job-{label}".rstrip("-")
    if len(label) <= MAX_NAME:
        return label
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{label[: MAX_NAME - 7].rstrip('-')}-{digest}"


def to_yaml(manifests: Iterable[dict[str, Any]]) -> str:
    """The manifests as one file, in the order of their fields, a text of several lines as it was written."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120)


def _cluster(head: dict[str, Any], worker: dict[str, Any], pods: int) -> dict[str, Any]:
    """A RayClusterSpec of a head that takes no work and a fixed number of equal workers."""
    # The operator and our pods reach the dashboard from outside its pod; the token and the policies keep others out.
    start = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}  # noqa: S104
    group = {"groupName": "workers", "replicas": pods, "minReplicas": pods, "maxReplicas": pods}
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": TOKEN_SECRET},
        "headGroupSpec": {"rayStartParams": start, "template": head},
        "workerGroupSpecs": [{**group, "rayStartParams": {}, "template": worker}],
    }


def _shared_out(workers: int, cpus: float, gpus: float, *, spare: float) -> tuple[int, dict[str, Any]]:
    """How many pods, and the resources of each: one worker or those that share a GPU, and CPUs for what runs beside."""
    together = math.floor(1 / gpus + 1e-9) if 0 < gpus < 1 else 1
    return math.ceil(workers / together), _resources(cpus=math.ceil(together * cpus + spare), gpus=math.ceil(gpus))


def _resources(*, cpus: int, gpus: int) -> dict[str, Any]:
    """Requests that are limits too: what is promised to Ray must be there."""
    device = {"nvidia.com/gpu": gpus} if gpus else {}
    asked = {"cpu": cpus, "memory": f"{GIB_PER_CPU * cpus}Gi", "ephemeral-storage": "50Gi", **device}
    return {"requests": asked, "limits": asked}


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What all pods of a job have in common."""

    image: str
    claim: str
    config: str
    """The ConfigMap of the job file; empty if the image has it."""


def _pod(name: str, resources: dict[str, Any], place: _Place, *, env: Mapping[str, str] = {}) -> dict[str, Any]:
    """A pod template that may do no more than it must."""
    volumes = _volumes(place, GIB_PER_CPU * resources["limits"]["cpu"])
    container = {
        "name": name,
        "image": place.image,
        "env": [{"name": key, "value": value} for key, value in {"STARTUP_RAY_CACHE": SCRATCH, **env}.items()],
        "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": volume["name"], "mountPath": _MOUNTS[volume["name"]]} for volume in volumes],
    }
    spec = {
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        **({"tolerations": [_GPU_TAINT]} if "nvidia.com/gpu" in resources["limits"] else {}),
        "securityContext": _SECURITY,
        "containers": [container],
        "volumes": volumes,
    }
    return {"metadata": {"labels": LABELS}, "spec": spec}


def _volumes(place: _Place, memory_gib: int) -> list[dict[str, Any]]:
    """Ray's objects are 30% of a node's memory, and workers of one pod add up gradients there too."""
    shared_gib = math.ceil(0.4 * memory_gib)
    return [
        {"name": "storage", "persistentVolumeClaim": {"claimName": place.claim}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "40Gi"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared_gib}Gi"}},
        *([{"name": "job", "configMap": {"name": place.config}}] if place.config else []),
    ]


class _Dumper(yaml.SafeDumper):
    """Repeats what is said twice, and keeps the lines of a text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)

_MOUNTS = {
    "storage": STORAGE,
    "scratch": SCRATCH,
    "shared-memory": "/dev/shm",  # noqa: S108
    "job": JOB_FILE.rpartition("/")[0],
}
_GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
