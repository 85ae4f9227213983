"""The log of a job, to its end: each character once, whatever happens to the connection.

    job = follow(api, "x-1a2b3c4d-1", Tail(sys.stderr.write))

A connection that begins anew has the log from its beginning, so what was printed is left out by its length. A stream
that ends says nothing about the job (ray-project/ray#51601): its state is asked for, and the rest of its log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from startup_ray.errors import ClusterError, LostError, UsageError
from startup_ray.submit.jobs_api import CONNECT_S, Details, JobsApi, job_path

PATIENCE_S = 60.0
"""How long a cluster may give no answer before it counts as lost."""
HEARTBEAT_S = 10.0
"""Of the stream: a head that is gone without a word is found by it."""
PAUSE_S = 1.0

Write = Callable[[str], object]


def follow(
    api: JobsApi,
    submission_id: str,
    tail: Tail,
    *,
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Details:
    """Write what its driver prints, until the job has ended; with the same tail again, what came since.

    Returns:
        How it ended.

    Raises:
        ClusterError: no answer for `patience_s`, or a head that does not know the job any more.
        UsageError: there is no such job.
    """
    known, answered = False, clock()
    while True:
        try:
            job = api.details(submission_id)
            known, answered = True, clock()
            if job.has_ended:
                _write_rest(api, submission_id, tail)
                return job
            asyncio.run(_stream(api, submission_id, tail))
        except UsageError as error:
            if not known:
                raise
            raise _lost(
                "the cluster was started anew and does not know the job any more", api, submission_id
            ) from error
        except LostError as error:
            if clock() - answered >= patience_s:
                raise _lost(f"the cluster is lost: {error.message}", api, submission_id) from error
        sleep(PAUSE_S)


def end_of(
    api: JobsApi,
    submission_id: str,
    *,
    patience_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Details:
    """Wait for the end of a job that was told to stop.

    Raises:
        ClusterError: it has not ended in this time.
    """
    began = clock()
    while not (job := api.details(submission_id)).has_ended:
        if clock() - began >= patience_s:
            raise ClusterError(f"{submission_id} has not ended in {patience_s:g} s", where=api.cluster.url)
        sleep(PAUSE_S)
    return job


class Tail:
    """Writes what goes beyond all that was written before."""

    def __init__(self, write: Write) -> None:
        self._write, self._written = write, 0

    def take(self, text: str, at: int) -> int:
        """Take a piece of the log that begins at this character; returns where it ends."""
        end = at + len(text)
        if end > self._written:
            self._write(text[max(0, self._written - at) :])
            self._written = end
        return end


async def _stream(api: JobsApi, submission_id: str, tail: Tail) -> None:
    """Until the other side closes it, in whatever way."""
    url = f"{api.cluster.url}{job_path(submission_id)}/logs/tail"
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    trust_env = not api.cluster.is_loopback
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, headers=api.cluster.headers(), trust_env=trust_env) as session,
            session.ws_connect(url, heartbeat=HEARTBEAT_S, max_msg_size=0) as stream,
        ):
            at = 0
            async for message in stream:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                at = tail.take(message.data, at)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return


def _write_rest(api: JobsApi, submission_id: str, tail: Tail) -> None:
    try:
        tail.take(api.log(submission_id), 0)
    except ClusterError:  # the node of its driver is gone, and the log with it
        return


def _lost(message: str, api: JobsApi, submission_id: str) -> ClusterError:
    hint = f"the job may go on: `startup-ray logs {submission_id} --address {api.cluster.url}`"
    return ClusterError(message, where=api.cluster.url, hint=hint)
