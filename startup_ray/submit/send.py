"""Start a job on a cluster once, however often it is asked for.

    submission_id, is_new = send(api, order)

The submission id follows from the work and the number of the attempt: one that is at work is found again, also where
the answer to a submission was lost; after one that has ended comes the next.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from startup_ray.errors import ExistsError, LostError, UsageError
from startup_ray.submit.jobs_api import Details, JobsApi
from startup_ray.submit.order import Order
from startup_ray.submit.upload import megabytes, packed

PACKAGE = "package"
"""In a job's metadata: what was uploaded."""

log = logging.getLogger("startup_ray")


def send(api: JobsApi, order: Order, *, driver_cpus: float = 0.0) -> tuple[str, bool]:
    """Upload and start it, unless it is at work.

    Returns:
        Its submission id, and whether it was started now.

    Raises:
        ClusterError: the cluster is lost, or does not take it.
    """
    name, data = packed(order.files)
    attempts = attempts_of(order.stem, api.jobs())
    if attempts and not attempts[-1].has_ended:
        return _attached(attempts[-1], name)
    submission_id = f"{order.stem}-{_number(attempts[-1]) + 1 if attempts else 1}"
    if not api.has_package(name):
        log.info("submit: uploading %d files, %s packed", len(order.files), megabytes(len(data)))
        api.put_package(name, data)
    environment = {"working_dir": f"gcs://{name}", "env_vars": dict(order.variables)}
    try:
        api.submit(
            entrypoint=order.entrypoint,
            submission_id=submission_id,
            runtime_env=environment,
            metadata={PACKAGE: name, "startup_ray": order.stem},
            driver_cpus=driver_cpus,
        )
    except ExistsError:
        return _attached(api.details(submission_id), name)
    except LostError as error:
        return _perhaps_there(api, submission_id, error), True
    return submission_id, True


def attempts_of(stem: str, jobs: Sequence[Details]) -> list[Details]:
    """In the order of their numbers."""
    own = [job for job in jobs if re.fullmatch(re.escape(stem) + r"-\d+", job.submission_id)]
    return sorted(own, key=_number)


def _number(job: Details) -> int:
    return int(job.submission_id.rsplit("-", 1)[1])


def _attached(job: Details, package: str) -> tuple[str, bool]:
    if job.metadata.get(PACKAGE, package) != package:
        log.warning("submit: %s is at work with other files than those here; stop it to start anew", job.submission_id)
    return job.submission_id, False


def _perhaps_there(api: JobsApi, submission_id: str, error: LostError) -> str:
    try:
        return api.details(submission_id).submission_id
    except UsageError:
        raise error from None
