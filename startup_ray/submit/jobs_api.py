"""Ray's Jobs API: HTTP with time limits, and errors that say what to do.

    api = JobsApi(cluster)
    api.submit(entrypoint="python -m startup_ray run jobs/x.yaml", submission_id="x-1a2b3c4d-1", ...)
    api.details("x-1a2b3c4d-1").status

Why not Ray's `JobSubmissionClient`: it imports Ray, its calls have no time limit, and its errors are tracebacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from requests.auth import AuthBase

from startup_ray.errors import ClusterError, ExistsError, LostError, UsageError
from startup_ray.submit.address import TOKEN_PATH, Cluster

CONNECT_S, READ_S, UPLOAD_S = 5.0, 30.0, 600.0
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a cluster knows of a job."""

    submission_id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str = ""
    driver_exit_code: int | None = None
    """None: there was no driver, or it has not ended by itself."""
    entrypoint: str = ""
    start_ms: int | None = None
    metadata: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL


class JobsApi:
    """Use it from one thread; every call raises LostError where nobody answers, ClusterError where one refuses."""

    def __init__(self, cluster: Cluster, *, read_s: float = READ_S) -> None:
        self.cluster, self._read_s = cluster, read_s
        self._session = requests.Session()
        self._session.auth = _Bearer(cluster)
        self._session.trust_env = not cluster.is_loopback  # no proxy is on the way to this machine

    def versions(self) -> tuple[str, str]:
        """Of Ray and of Python, on the head."""
        data = self._call("GET", "/api/v0/cluster_metadata").get("data", {})
        return str(data.get("rayVersion", "")), str(data.get("pythonVersion", ""))

    def resources(self) -> dict[str, Any]:
        """`clusterStatus` of the autoscaler's monitor; empty until it has reported for the first time."""
        data = self._call("GET", "/api/cluster_status").get("data") or {}
        return dict(data.get("clusterStatus") or {})

    def has_package(self, name: str) -> bool:
        """Whether it was uploaded before; if so, the cluster keeps it for the next minutes."""
        return self._call("GET", f"/api/packages/gcs/{name}", may_miss=True) is not None

    def put_package(self, name: str, data: bytes) -> None:
        """Upload a zip; jobs name it `gcs://NAME`."""
        self._call("PUT", f"/api/packages/gcs/{name}", data=data, read_s=UPLOAD_S)

    def submit(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
        driver_cpus: float = 0.0,
    ) -> None:
        """Start a job.

        Args:
            driver_cpus: that its driver takes; with 0 it runs on the head.

        Raises:
            ExistsError: there is one with this id.
        """
        body = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": dict(runtime_env),
            "metadata": dict(metadata),
            **({"entrypoint_num_cpus": driver_cpus} if driver_cpus else {}),
        }
        try:
            self._call("POST", "/api/jobs/", json=body)
        except ClusterError as error:
            if submission_id in error.message and "already exists" in error.message:
                raise ExistsError(error.message, where=error.where) from error
            raise

    def details(self, submission_id: str) -> Details:
        """
        Raises:
            UsageError: the cluster knows no such job.
        """
        return _details(self._known("GET", submission_id))

    def jobs(self) -> list[Details]:
        """All that were submitted, the oldest first."""
        found = [_details(one) for one in self._call("GET", "/api/jobs/") if one.get("submission_id")]
        return sorted(found, key=lambda one: one.start_ms or 0)

    def log(self, submission_id: str) -> str:
        """All that its driver has printed."""
        return str(self._known("GET", submission_id, "/logs").get("logs", ""))

    def stop(self, submission_id: str) -> None:
        """Ask for its end; SIGTERM comes first."""
        self._known("POST", submission_id, "/stop")

    def _known(self, method: str, submission_id: str, what: str = "") -> Any:
        answer = self._call(method, job_path(submission_id) + what, may_miss=True)
        if answer is None:
            raise unknown(submission_id, self.cluster)
        return answer

    def _call(self, method: str, path: str, *, read_s: float = 0.0, may_miss: bool = False, **body: Any) -> Any:
        """
        Args:
            may_miss: whether 404 is an answer.

        Returns:
            What it answers, read; None for 404.
        """
        url = self.cluster.url + path
        try:
            # A redirect would take the token to another host.
            answer = self._session.request(
                method, url, timeout=(CONNECT_S, read_s or self._read_s), allow_redirects=False, **body
            )
        except requests.RequestException as error:
            raise LostError(
                f"no Jobs API answers: {_reason(error)}",
                where=self.cluster.url,
                hint="check --address, that the cluster is up and that this host may reach it",
            ) from error
        return None if answer.status_code == 404 and may_miss else _read(answer, self.cluster)


class _Bearer(AuthBase):
    """Set for each request, so that no ~/.netrc takes its place."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._cluster.headers())
        return request


def unknown(submission_id: str, cluster: Cluster) -> UsageError:
    """The cluster was asked for a job that it does not know."""
    hint = f"`startup-ray jobs --address {cluster.url}` lists what it knows"
    return UsageError(f"no job {submission_id}", where=cluster.url, hint=hint)


def job_path(submission_id: str) -> str:
    """Of a job, below the cluster's address."""
    return f"/api/jobs/{quote(submission_id, safe='')}"


def _read(answer: requests.Response, cluster: Cluster) -> Any:
    """What it says as JSON; an empty mapping where it says nothing."""
    code, where = answer.status_code, cluster.url
    if code == 200:
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise LostError("what answers is no Jobs API of Ray", where=where, hint="check --address") from None
    if code == 401:
        raise ClusterError("the cluster wants a token", where=where, hint=f"set {TOKEN_PATH} to a file with it")
    if code == 403:
        raise ClusterError("the cluster refuses this token", where=where, hint=f"ask who runs it; see {TOKEN_PATH}")
    kind = LostError if code in (404, 502, 503, 504) or code // 100 == 3 else ClusterError
    raise kind(f"it answers {code}: {_said(answer.text)}", where=where, hint="check --address")


def _said(text: str) -> str:
    """The last line of a traceback, or what else it says."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "it takes too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    inner = str(error).lower()
    known = {"refused": "connection refused", "name or service": "no such host", "resolve": "no such host"}
    return next((words for part, words in known.items() if part in inner), "the connection broke")


def _details(found: Mapping[str, Any]) -> Details:
    return Details(
        submission_id=str(found.get("submission_id") or ""),
        status=str(found["status"]),
        message=str(found.get("message") or ""),
        driver_exit_code=found.get("driver_exit_code"),
        entrypoint=str(found.get("entrypoint") or ""),
        start_ms=found.get("start_time"),
        metadata=dict(found.get("metadata") or {}),
    )
