"""The manifests of cluster/kuberay, and those that a job is printed as."""

from __future__ import annotations

import base64
import copy
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from startup_ray.cli import main
from startup_ray.job import Job
from startup_ray.jobfile import load_job
from startup_ray.submit.kuberay import JOB_FILE, SERVICE_ACCOUNT, STORAGE, job_config, kubernetes_name, ray_job, to_yaml
from tests.cluster import rules
from tests.cluster.kustomize import build

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
KUBERNETES = "1.37"
"""The newest schema that kubernetes-validate 1.37 brings."""

Manifest = dict[str, Any]


@cache
def overlay(name: str) -> list[Manifest]:
    return build(KUBERAY / "overlays" / name)


def find(manifests: list[Manifest], kind: str) -> Manifest:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


@cache
def gpu_job() -> list[Manifest]:
    """What a user gets for jobs/gpu-cnn.yaml."""
    path = ROOT / "jobs" / "gpu-cnn.yaml"
    job = load_job(path)
    return [job_config(name=job.name, text=path.read_text()), printed(job)]


def printed(job: Job) -> Manifest:
    return ray_job(
        name=job.name,
        argv=["startup-ray", "run", JOB_FILE],
        workers=job.scaling.max_workers,
        cpus_per_worker=job.scaling.threads_per_worker,
        gpus_per_worker=job.scaling.gpus_per_worker,
        image="registry.example.com/startup_ray:gpu",
        claim="startup-ray",
        driver_cpus=1 if job.ingest.manifest.startswith("sample:") else 0,
    )


CLUSTERS: dict[str, Callable[[], Manifest]] = {
    "cpu": lambda: find(overlay("cpu"), "RayCluster"),
    "gpu": lambda: find(overlay("gpu"), "RayCluster"),
    "job": lambda: gpu_job()[1],
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_is_shipped_breaks_no_rule(name: str) -> None:
    assert rules.complaints(CLUSTERS[name]()) == {}


def pod(manifest: Manifest, group: int = 0) -> Manifest:
    return rules.pods_of(manifest)[group]


def container(manifest: Manifest, group: int = 0) -> Manifest:
    found: Manifest = pod(manifest, group)["containers"][0]
    return found


Break = Callable[[Manifest], object]
BROKEN: list[tuple[rules.Rule, Break]] = [
    (rules.name_is_a_label, lambda m: m["metadata"].update(name="gpu_cnn")),
    (rules.name_is_a_label, lambda m: m["metadata"].update(name="1-cnn")),
    (rules.name_is_a_label, lambda m: m["metadata"].update(name="a" * 54)),
    (rules.token_is_asked_for, lambda m: rules.cluster_of(m)["authOptions"].pop("mode")),
    (rules.token_is_asked_for, lambda m: rules.cluster_of(m)["authOptions"].update(mode="disabled")),
    (rules.token_is_asked_for, lambda m: rules.cluster_of(m).pop("authOptions")),
    (rules.version_knows_tokens, lambda m: rules.cluster_of(m).pop("rayVersion")),
    (rules.version_knows_tokens, lambda m: rules.cluster_of(m).update(rayVersion="2.9.3")),
    (
        rules.token_is_not_in_the_file,
        lambda m: container(m, 1)["env"].append({"name": "RAY_AUTH_TOKEN", "value": "0123"}),
    ),
    (rules.nothing_needs_a_gate, lambda m: rules.cluster_of(m).update(networkPolicy={})),
    (rules.nothing_needs_a_gate, lambda m: rules.cluster_of(m).update(tlsOptions={})),
    (
        rules.nothing_needs_a_gate,
        lambda m: rules.cluster_of(m).update(gcsFaultToleranceOptions={"backend": "rocksdb"}),
    ),
    (rules.resources_are_said_once, lambda m: rules.groups_of(m)[0].update(resources={"CPU": "0"})),
    (rules.sizes_hold, lambda m: rules.groups_of(m)[1].pop("maxReplicas")),
    (rules.sizes_hold, lambda m: rules.groups_of(m)[1].update(minReplicas=99)),
    (rules.pods_are_not_restarted_in_place, lambda m: pod(m).update(restartPolicy="Always")),
    (
        rules.deletion_is_said_once,
        lambda m: m["spec"].update(deletionStrategy={"deletionRules": []}, shutdownAfterJobFinishes=True),
    ),
    (
        rules.deletion_is_said_once,
        lambda m: m["spec"].update(ttlSecondsAfterFinished=60, shutdownAfterJobFinishes=False),
    ),
    (rules.submitter_fits_the_mode, lambda m: m["spec"].update(submissionMode="SidecarMode", submitterConfig={})),
    (
        rules.submitter_fits_the_mode,
        lambda m: m["spec"].update(submissionMode="SidecarMode", submitterPodTemplate={}),
    ),
    (rules.submitter_fits_the_mode, lambda m: m["spec"].update(submissionMode="InteractiveMode", backoffLimit=1)),
    (rules.a_retry_finds_what_was_done, lambda m: pod(m)["volumes"].pop(0)),
    (rules.a_retry_finds_what_was_done, lambda m: container(m, 1)["volumeMounts"][0].update(mountPath="/data")),
    (rules.the_head_takes_no_work, lambda m: rules.groups_of(m)[0]["rayStartParams"].pop("num-cpus")),
    (rules.dead_hosts_are_noticed, lambda m: container(m)["env"].pop()),
    (rules.pods_run_as_somebody_else, lambda m: pod(m)["securityContext"].pop("runAsNonRoot")),
    (rules.pods_run_as_somebody_else, lambda m: pod(m)["securityContext"].update(runAsUser=0)),
    (rules.pods_run_as_somebody_else, lambda m: pod(m, 1)["securityContext"].pop("seccompProfile")),
    (rules.pods_run_as_somebody_else, lambda m: pod(m, 1).update(hostNetwork=True)),
    (rules.pods_run_as_somebody_else, lambda m: pod(m)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    (rules.pods_run_as_somebody_else, lambda m: container(m)["securityContext"].pop("allowPrivilegeEscalation")),
    (rules.pods_run_as_somebody_else, lambda m: container(m)["securityContext"].update(privileged=True)),
    (rules.pods_run_as_somebody_else, lambda m: container(m, 1)["securityContext"].pop("capabilities")),
    (
        rules.pods_run_as_somebody_else,
        lambda m: container(m)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
    ),
    (rules.pods_run_as_somebody_else, lambda m: rules.cluster_of(m).update(autoscalerOptions={"version": "v2"})),
    (rules.only_a_scaling_head_asks_the_api_server, lambda m: pod(m, 1).pop("automountServiceAccountToken")),
    (rules.only_a_scaling_head_asks_the_api_server, lambda m: pod(m).pop("serviceAccountName")),
    (rules.what_is_promised_is_there, lambda m: container(m)["resources"].pop("limits")),
    (rules.what_is_promised_is_there, lambda m: container(m, 1)["resources"].update(requests={"cpu": 1})),
    (rules.shared_memory_is_sized, lambda m: container(m)["volumeMounts"].pop(2)),
    (rules.shared_memory_is_sized, lambda m: pod(m, 1)["volumes"][2].update(emptyDir={})),
    (
        rules.shared_memory_is_sized,
        lambda m: pod(m, 1)["volumes"][2].update(emptyDir={"medium": "Memory", "sizeLimit": "1Gi"}),
    ),
    (rules.policies_know_the_pods, lambda m: rules.groups_of(m)[1]["template"].pop("metadata")),
    (
        rules.policies_know_the_pods,
        lambda m: rules.groups_of(m)[0]["template"]["metadata"]["labels"].update({"app.kubernetes.io/name": "x"}),
    ),
]
BROKEN_JOBS: list[tuple[rules.Rule, Break]] = [
    (rules.a_job_ends, lambda m: m["spec"].pop("activeDeadlineSeconds")),
    (rules.a_job_ends, lambda m: m["spec"].pop("backoffLimit")),
    (rules.a_job_ends, lambda m: m["spec"].pop("shutdownAfterJobFinishes")),
    (rules.submitter_fits_the_mode, lambda m: m["spec"].pop("submissionMode")),
]


def test_each_rule_sees_its_fault_in_what_is_shipped() -> None:
    shipped = {name: make() for name, make in CLUSTERS.items()}
    cases = [*product(BROKEN, shipped), *((case, "job") for case in BROKEN_JOBS)]
    for (rule, damage), name in cases:
        manifest = copy.deepcopy(shipped[name])
        damage(manifest)
        assert rule.__name__ in rules.complaints(manifest), (rule.__name__, name)
    assert {rule for rule, _ in [*BROKEN, *BROKEN_JOBS]} == set(rules.RULES)


def as_pods(manifest: Manifest) -> list[Manifest]:
    """The pods that the operator makes, for a schema that knows no RayCluster."""
    groups = rules.groups_of(manifest)
    return [
        {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(group["template"]), "metadata": {"name": "pod"}}
        for group in groups
    ]


def known_to_kubernetes() -> list[Manifest]:
    built = [overlay(name) for name in ("cpu", "gpu")]
    plain = [manifest for manifests in built for manifest in manifests if manifest["kind"] != "RayCluster"]
    stub = yaml.safe_load((KUBERAY / "base" / "secret.stub.yaml").read_text())
    return [*plain, stub, gpu_job()[0], *(pod for make in CLUSTERS.values() for pod in as_pods(make()))]


def test_kubernetes_knows_every_field() -> None:
    manifests = known_to_kubernetes()
    kinds = {"Namespace", "ServiceAccount", "NetworkPolicy", "PersistentVolumeClaim", "Secret", "ConfigMap", "Pod"}
    assert {manifest["kind"] for manifest in manifests} == kinds
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_schema_is_strict() -> None:
    manifest = as_pods(gpu_job()[1])[0]
    manifest["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalations"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_kustomize_builds_what_is_tested_here(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine")
    folder = KUBERAY / "overlays" / name
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=True)

    def order(manifest: Manifest) -> tuple[str, str]:
        return manifest["kind"], manifest["metadata"]["name"]

    assert sorted(yaml.safe_load_all(done.stdout), key=order) == sorted(overlay(name), key=order)


def test_only_an_overlay_with_gpus_has_pods_with_gpus() -> None:
    def gpus(name: str) -> list[int]:
        return [pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0) for pod in pods(name)]

    def pods(name: str) -> list[Manifest]:
        return rules.pods_of(CLUSTERS[name]())

    assert (gpus("cpu"), gpus("gpu"), gpus("job")) == ([0, 0], [0, 0, 1], [0, 1])
    assert [pod["containers"][0]["image"].rpartition(":")[2] for pod in pods("gpu")] == ["gpu"] * 3
    assert [bool(pod.get("tolerations")) for pod in pods("gpu")] == [False, False, True]


def test_a_standing_cluster_has_the_pods_of_a_job() -> None:
    """Written by hand, with comments; but not other than what `ray_job` writes."""
    cluster, job = CLUSTERS["gpu"](), CLUSTERS["job"]()
    for hand, made in zip([0, 2], [0, 1], strict=True):
        ours, theirs = copy.deepcopy(pod(cluster, hand)), copy.deepcopy(pod(job, made))
        for template in (ours, theirs):
            del template["serviceAccountName"], template["automountServiceAccountToken"]
        theirs["volumes"].pop()
        theirs["containers"][0]["volumeMounts"].pop()
        assert ours == theirs


def test_the_secret_is_a_stub_that_the_api_server_refuses() -> None:
    stub = yaml.safe_load((KUBERAY / "base" / "secret.stub.yaml").read_text())
    cluster = rules.cluster_of(CLUSTERS["gpu"]())
    assert stub["metadata"]["name"] == cluster["authOptions"]["secretName"]
    assert list(stub["data"]) == ["auth_token"]
    with pytest.raises(ValueError, match="base64"):
        base64.b64decode(stub["data"]["auth_token"], validate=True)
    assert not any("secret" in path.read_text().lower().split("resources:")[-1] for path in kustomizations())


def kustomizations() -> list[Path]:
    found = sorted(KUBERAY.rglob("kustomization.yaml"))
    assert len(found) == 3
    return found


def test_what_pods_name_is_there() -> None:
    manifests = overlay("gpu")
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    claims = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    for make in CLUSTERS.values():
        for each in rules.pods_of(make()):
            assert each["serviceAccountName"] in accounts
            assert each["volumes"][0]["persistentVolumeClaim"]["claimName"] in claims
    assert accounts == {SERVICE_ACCOUNT, "startup-ray-autoscaler"}
    assert all(m["automountServiceAccountToken"] is False for m in manifests if m["kind"] == "ServiceAccount")


def policies() -> dict[str, Manifest]:
    manifests = overlay("gpu")
    return {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}


def test_policies_let_in_our_pods_and_the_operator_alone() -> None:
    ours = policies()["startup-ray"]
    assert ours["policyTypes"] == ["Ingress", "Egress"]
    inside, operator = ours["ingress"]
    assert inside == {"from": [{"podSelector": ours["podSelector"]}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (peer,) = operator["from"]
    assert peer.keys() == {"namespaceSelector", "podSelector"}  # both at once, not one or the other
    assert all(selector["matchLabels"] for selector in peer.values())
    selects(ours["podSelector"], CLUSTERS["gpu"](), [0, 1, 2])
    selects(policies()["startup-ray-autoscaler"]["podSelector"], CLUSTERS["gpu"](), [0])
    selects(policies()["startup-ray-autoscaler"]["podSelector"], CLUSTERS["job"](), [])


def selects(selector: Manifest, manifest: Manifest, groups: list[int]) -> None:
    labels = [group["template"]["metadata"]["labels"] for group in rules.groups_of(manifest)]
    assert [n for n, found in enumerate(labels) if selector["matchLabels"].items() <= found.items()] == groups


def test_policies_let_nobody_reach_a_metadata_service() -> None:
    from ipaddress import ip_address, ip_network

    for policy, address in product(policies().values(), ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"]):
        for block in (peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer):
            outside = any(ip_address(address) in ip_network(part) for part in block.get("except", []))
            assert outside or ip_address(address) not in ip_network(block["cidr"])


def test_the_shipped_job_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = (KUBERAY / "rayjob.yaml").read_text()
    manifests = re.sub(r"\A(#.*\n)+", "", shipped)
    job, image = str(ROOT / "jobs" / "gpu-cnn.yaml"), "registry.example.com/startup_ray:gpu"
    assert main(["submit", job, "--kuberay", "--image", image]) == 0
    assert manifests == capsys.readouterr().out
    assert list(yaml.safe_load_all(shipped)) == gpu_job()


def test_the_job_file_that_is_brought_is_the_one_that_was_given(tmp_path: Path) -> None:
    brought = yaml.safe_load_all(to_yaml(gpu_job()))
    text = next(brought)["data"]["job.yaml"]
    (tmp_path / "job.yaml").write_text(text)
    assert load_job(tmp_path / "job.yaml") == load_job(ROOT / "jobs" / "gpu-cnn.yaml")
    assert text == (ROOT / "jobs" / "gpu-cnn.yaml").read_text()
    for each in rules.pods_of(gpu_job()[1]):  # the command runs on the head, or on a worker
        mounts = {mount["name"]: mount["mountPath"] for mount in each["containers"][0]["volumeMounts"]}
        (volume,) = (volume for volume in each["volumes"] if "configMap" in volume)
        assert volume["configMap"]["name"] == gpu_job()[0]["metadata"]["name"]
        assert f"{mounts[volume['name']]}/job.yaml" == JOB_FILE
        assert load_job(ROOT / "jobs" / "gpu-cnn.yaml").storage == mounts["storage"] == STORAGE


def make(**changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "name": "pets",
        "argv": ["startup-ray", "run", "pets.yaml"],
        "workers": 2,
        "cpus_per_worker": 1.0,
        "gpus_per_worker": 0.0,
        "image": "i",
        "claim": "c",
    }
    return ray_job(**given | changes)


def test_a_shell_reads_the_command_as_it_was_meant() -> None:
    argv = [
        "startup-ray",
        "run",
        "my pets.yaml",
        "--set",
        'evaluation.gates=["f1 >= 0.9"]',
        "--set",
        "name=$(id); `id` 'x'",
    ]
    entrypoint = make(argv=argv)["spec"]["entrypoint"]
    assert shlex.split(entrypoint) == argv
    echo = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {entrypoint}"], capture_output=True, text=True, check=True)
    assert echo.stdout.split("\0")[:-1] == argv
    assert yaml.safe_load(to_yaml([make(argv=argv)]))["spec"]["entrypoint"] == entrypoint


def test_a_job_file_of_the_image_is_not_mounted() -> None:
    assert all("configMap" not in volume for each in rules.pods_of(make()) for volume in each["volumes"])
    assert rules.complaints(make()) == {}


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "driver", "pods", "limits"),
    [
        (1, 1.0, 0.0, 0.0, 1, {"cpu": 2, "memory": "8Gi"}),
        (3, 4.0, 0.0, 0.0, 3, {"cpu": 5, "memory": "20Gi"}),
        (2, 4.0, 1.0, 1.0, 2, {"cpu": 6, "memory": "24Gi", "nvidia.com/gpu": 1}),
        (5, 2.0, 0.5, 0.0, 3, {"cpu": 5, "memory": "20Gi", "nvidia.com/gpu": 1}),
        (6, 1.0, 1 / 3, 0.0, 2, {"cpu": 4, "memory": "16Gi", "nvidia.com/gpu": 1}),
        (2, 1.0, 0.7, 0.0, 2, {"cpu": 2, "memory": "8Gi", "nvidia.com/gpu": 1}),
    ],
)
def test_pods_have_room_for_the_workers(
    workers: int, cpus: float, gpus: float, driver: float, pods: int, limits: Manifest
) -> None:
    manifest = make(workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus, driver_cpus=driver)
    (group,) = rules.cluster_of(manifest)["workerGroupSpecs"]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (pods, pods, pods)
    assert container(manifest, 1)["resources"]["limits"].items() >= limits.items()
    assert bool(pod(manifest, 1).get("tolerations")) == bool(gpus)
    assert manifest["spec"].get("entrypointNumCpus", 0) == driver
    assert rules.complaints(manifest) == {}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("pets", "pets"),
        ("digits_cnn", "digits-cnn"),
        ("7up", "job-7up"),
        ("_-", "job"),
        ("end-", "end"),
        ("a" * 47, "a" * 47),
    ],
)
def test_a_name_becomes_a_label(name: str, label: str) -> None:
    assert kubernetes_name(name) == label


def test_names_that_are_cut_stay_labels_and_stay_different() -> None:
    names = ["a" * 50 + last for last in "xyz"] + ["a-" * 30]
    labels = [kubernetes_name(name) for name in names]
    assert len(set(labels)) == len(names)
    assert all(rules.complaints(make(name=name)) == {} for name in names)


def test_the_version_of_ray_is_the_one_that_images_have() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert {rules.cluster_of(make())["rayVersion"] for make in CLUSTERS.values()} == {pinned}
