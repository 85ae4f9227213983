"""What the KubeRay operator and a careful administrator ask of a manifest, and no schema says.

    complaints(manifest)        # {"token_is_asked_for": ["authOptions.mode is not `token`"]}; {} if all is well

Each rule is a function from a RayCluster or RayJob to what is wrong with it. The operator's are those of KubeRay 1.7,
which tells them in an event of the resource and then does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Manifest = dict[str, Any]
Rule = Callable[[Manifest], Iterator[str]]

LIMITS = {"RayJob": 47, "RayCluster": 53}
TOKENS_SINCE = (2, 52)
SHARED_MEMORY = "/dev/shm"  # noqa: S108
SAID_BY_START = ("num-cpus", "num-gpus", "memory", "resources")


def complaints(manifest: Manifest) -> dict[str, list[str]]:
    """What each rule has to say, of those that have something."""
    found = {rule.__name__: list(rule(manifest)) for rule in RULES}
    return {name: said for name, said in found.items() if said}


def cluster_of(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]
    return spec["rayClusterSpec"] if manifest["kind"] == "RayJob" else spec


def groups_of(manifest: Manifest) -> list[Manifest]:
    """The head's group, then those of workers."""
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods_of(manifest: Manifest) -> list[Manifest]:
    return [group["template"]["spec"] for group in groups_of(manifest)]


def _containers(manifest: Manifest) -> list[Manifest]:
    return [container for pod in pods_of(manifest) for container in pod["containers"]]


def name_is_a_label(manifest: Manifest) -> Iterator[str]:
    name, limit = manifest["metadata"]["name"], LIMITS[manifest["kind"]]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"{name!r} is not a DNS-1035 label"
    if len(name) > limit:
        yield f"{name!r} has more than {limit} characters"


def token_is_asked_for(manifest: Manifest) -> Iterator[str]:
    """`authOptions` without a mode sets nothing on the pods, which then start open."""
    options = cluster_of(manifest).get("authOptions") or {}
    if options.get("mode") != "token":
        yield "authOptions.mode is not `token`"
    if not options.get("secretName"):
        yield "authOptions.secretName is not written out"


def version_knows_tokens(manifest: Manifest) -> Iterator[str]:
    version = str(cluster_of(manifest).get("rayVersion", ""))
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        yield "rayVersion is not written out"
    elif tuple(int(part) for part in version.split(".")[:2]) < TOKENS_SINCE:
        yield f"rayVersion {version} knows no tokens"


def token_is_not_in_the_file(manifest: Manifest) -> Iterator[str]:
    for container in _containers(manifest):
        for variable in container.get("env", []):
            if variable["name"] == "RAY_AUTH_TOKEN" and "value" in variable:
                yield f"{container['name']} has a token in its env"


def nothing_needs_a_gate(manifest: Manifest) -> Iterator[str]:
    """Of KubeRay 1.7, by default off."""
    cluster = cluster_of(manifest)
    for field in {"networkPolicy", "tlsOptions", "historyServerOptions"} & cluster.keys():
        yield f"{field} needs a feature gate"
    if (cluster.get("gcsFaultToleranceOptions") or {}).get("backend") == "rocksdb":
        yield "rocksdb needs a feature gate"


def resources_are_said_once(manifest: Manifest) -> Iterator[str]:
    for group in groups_of(manifest):
        said = [key for key in SAID_BY_START if group["rayStartParams"].get(key)]
        if group.get("resources") and said:
            yield f"`resources` and rayStartParams {said} exclude each other"


def sizes_hold(manifest: Manifest) -> Iterator[str]:
    for group in groups_of(manifest)[1:]:
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if least is None or most is None or not 0 <= least <= group.get("replicas", least) <= most:
            yield f"{group['groupName']} has no bounds that hold"


def pods_are_not_restarted_in_place(manifest: Manifest) -> Iterator[str]:
    """The second autoscaler refuses it, and the operator replaces a pod that has ended."""
    if any(pod.get("restartPolicy") != "Never" for pod in pods_of(manifest)):
        yield "restartPolicy is not Never"


def deletion_is_said_once(manifest: Manifest) -> Iterator[str]:
    spec = manifest["spec"]
    if "deletionStrategy" in spec and spec.get("shutdownAfterJobFinishes"):
        yield "deletionStrategy and shutdownAfterJobFinishes exclude each other"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"


def submitter_fits_the_mode(manifest: Manifest) -> Iterator[str]:
    spec = manifest["spec"]
    mode = spec.get("submissionMode", "K8sJobMode")
    forbidden = {"submitterPodTemplate", "submitterConfig"} & spec.keys()
    if mode == "SidecarMode" and forbidden:
        yield f"SidecarMode forbids {sorted(forbidden)}"
    if mode == "InteractiveMode" and spec.get("backoffLimit"):
        yield "InteractiveMode forbids backoffLimit"
    if mode == "K8sJobMode" and manifest["kind"] == "RayJob" and "submitterPodTemplate" not in spec:
        yield "the submitter's own pod would have no security context"


def a_job_ends(manifest: Manifest) -> Iterator[str]:
    spec = manifest["spec"]
    if manifest["kind"] == "RayJob":
        if spec.get("activeDeadlineSeconds", 0) <= 0:
            yield "no activeDeadlineSeconds: a job that hangs keeps its GPUs for ever"
        if not spec.get("shutdownAfterJobFinishes"):
            yield "the cluster stays after the job"
        if not spec.get("backoffLimit", 0) > 0:
            yield "no backoffLimit: a lost head loses the job"


def a_retry_finds_what_was_done(manifest: Manifest) -> Iterator[str]:
    """A retry is a new cluster, and has only what lies on a claim that all pods mount at one place."""
    places = {
        tuple(
            (volume["persistentVolumeClaim"]["claimName"], mount["mountPath"])
            for volume in pod.get("volumes", [])
            for mount in pod["containers"][0].get("volumeMounts", [])
            if "persistentVolumeClaim" in volume and mount["name"] == volume["name"]
        )
        for pod in pods_of(manifest)
    }
    if len(places) != 1 or not all(places):
        yield f"pods mount different storage, or none: {places}"


def the_head_takes_no_work(manifest: Manifest) -> Iterator[str]:
    if groups_of(manifest)[0]["rayStartParams"].get("num-cpus") != "0":
        yield "the head has CPUs to give"


def dead_hosts_are_noticed(manifest: Manifest) -> Iterator[str]:
    env = {variable["name"]: variable.get("value") for variable in pods_of(manifest)[0]["containers"][0].get("env", [])}
    wanted = {"initial_delay_ms": "1000", "period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
    for name, value in wanted.items():
        if env.get(f"RAY_health_check_{name}") != value:
            yield f"RAY_health_check_{name} of the head is not {value}"


def pods_run_as_somebody_else(manifest: Manifest) -> Iterator[str]:
    """What the Pod Security Standard `restricted` asks of the pods and of a sidecar that the operator adds."""
    for pod in pods_of(manifest):
        context = pod.get("securityContext") or {}
        if not (context.get("runAsNonRoot") and context.get("runAsUser", 0) > 0):
            yield "a pod may run as root"
        if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
            yield "a pod has no seccomp profile"
        if any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
            yield "a pod shares a namespace of its host"
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            yield "a pod mounts a folder of its host"
    sidecar = cluster_of(manifest).get("autoscalerOptions")
    for container in [*_containers(manifest), *([sidecar] if sidecar is not None else [])]:
        context = container.get("securityContext") or {}
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield "a container may become more than it is"
        if (context.get("capabilities") or {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield "a container keeps capabilities"


def only_a_scaling_head_asks_the_api_server(manifest: Manifest) -> Iterator[str]:
    scales = bool(cluster_of(manifest).get("enableInTreeAutoscaling"))
    for place, pod in enumerate(pods_of(manifest)):
        if not pod.get("serviceAccountName"):
            yield "a pod has the namespace's default account"
        if pod.get("automountServiceAccountToken") is not (scales and place == 0):
            yield "a pod has a token for the API server that it does not need, or has none and needs it"


def what_is_promised_is_there(manifest: Manifest) -> Iterator[str]:
    """Ray counts limits; a pod that was given less is ended by its node when the others want theirs."""
    for container in _containers(manifest):
        resources = container.get("resources") or {}
        if not {"cpu", "memory"} <= (resources.get("limits") or {}).keys():
            yield f"{container['name']} has no limits of CPU and memory"
        if resources.get("requests") != resources.get("limits"):
            yield f"{container['name']} asks for less than its limits"


def shared_memory_is_sized(manifest: Manifest) -> Iterator[str]:
    """The container runtime's own has 64 MB. Ray's objects are 30% of the memory, and the pages count as memory."""
    for pod in pods_of(manifest):
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0].get("volumeMounts", [])}
        volumes = {volume["name"]: volume.get("emptyDir", {}) for volume in pod.get("volumes", [])}
        memory = volumes.get(mounts.get(SHARED_MEMORY, ""), {})
        limit = ((pod["containers"][0].get("resources") or {}).get("limits") or {}).get("memory", "0Gi")
        if memory.get("medium") != "Memory" or not 0.3 * gib(limit) < gib(memory.get("sizeLimit", "0Gi")) < gib(limit):
            yield f"{SHARED_MEMORY} is no memory of 30% to 100% of the pod's"


def policies_know_the_pods(manifest: Manifest) -> Iterator[str]:
    for group in groups_of(manifest):
        labels = group["template"].get("metadata", {}).get("labels", {})
        if labels.get("app.kubernetes.io/part-of") != "startup-ray":
            yield "a pod has no label by which the policies know it"
        if labels.keys() & {"app.kubernetes.io/name", "app.kubernetes.io/created-by"}:
            yield "a pod has a label of the operator's own"


def gib(quantity: str) -> float:
    """A quantity such as `16Gi`."""
    assert quantity.endswith("Gi"), quantity
    return float(quantity.removesuffix("Gi"))


RULES: tuple[Rule, ...] = (
    name_is_a_label,
    token_is_asked_for,
    version_knows_tokens,
    token_is_not_in_the_file,
    nothing_needs_a_gate,
    resources_are_said_once,
    sizes_hold,
    pods_are_not_restarted_in_place,
    deletion_is_said_once,
    submitter_fits_the_mode,
    a_job_ends,
    a_retry_finds_what_was_done,
    the_head_takes_no_work,
    dead_hosts_are_noticed,
    pods_run_as_somebody_else,
    only_a_scaling_head_asks_the_api_server,
    what_is_promised_is_there,
    shared_memory_is_sized,
    policies_know_the_pods,
)
