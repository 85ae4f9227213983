"""`startup-ray doctor`: does everything that a job needs work here, and if not, what to do.

    for check in examine(address=None, storage="runs"):
        print(check.state, check.name, check.seen, check.hint)

Every check ends: each wait has a limit, and what does not answer is a failure that says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from startup_ray.doctor.checks import FAIL, OK, WARN, Check, look_at_versions

__all__ = ["FAIL", "OK", "WARN", "Check", "examine"]


def examine(*, address: str | None = None, storage: str | None = None) -> Iterator[Check]:
    """Look at this machine, then at the cluster; each check comes as soon as it is known.

    Args:
        address: of a running Ray; else RAY_ADDRESS, or one that is started here.
        storage: what a job names so; without it no storage is looked at.
    """
    from startup_ray.errors import StartupRayError
    from startup_ray.session import connect

    yield look_at_versions()
    try:
        with connect(address) as session:
            from startup_ray.doctor.cluster import look_at_cluster

            yield Check(
                "ray",
                OK,
                f"{session.address}: {session.nodes} alive nodes, {session.cpus:g} CPUs, {session.gpus:g} GPUs",
            )
            yield from look_at_cluster(storage)
    except StartupRayError as error:
        yield Check("ray", FAIL, error.message, error.hint or "see `ray status`; check --address")
