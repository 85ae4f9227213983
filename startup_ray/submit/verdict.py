"""The exit code of a job: its driver's own.

Ray's command says 0 for a job that was stopped and 1 for every other failure (ray-project/ray#57002, #60665).
"""

from __future__ import annotations

from startup_ray.errors import INTERRUPTED, ClusterError
from startup_ray.submit.jobs_api import Details


def exit_code(job: Details) -> int:
    """Of a job that has ended.

    Returns:
        0 if it succeeded, 130 if it was stopped, its driver's own exit code (128 and the signal if one has killed it),
        5 if the cluster could not run it.
    """
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return INTERRUPTED
    code = job.driver_exit_code
    if code is None or code == 0:
        return ClusterError.exit_code
    return 128 - code if code < 0 else code


def in_words(job: Details) -> str:
    """How it ended, in a line."""
    if job.status == "SUCCEEDED":
        return "succeeded"
    if job.status == "STOPPED":
        return "was stopped"
    if job.driver_exit_code:
        return f"failed with exit code {exit_code(job)}"
    last = (job.message.strip().splitlines() or ["no reason given"])[-1]
    return f"failed, and not by itself: {last[:300]}"
