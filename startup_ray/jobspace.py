"""A job as the base of others: with values of a sweep's space set, as each trial has it, and whether it takes all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from startup_ray.errors import JobError
from startup_ray.job import Job
from startup_ray.jobcheck import SPACE, Loc, Problems, validate
from startup_ray.space import Axis, SpaceError, around, probes, set_values
from startup_ray.sweep_options import SweepOptions, refusal


def with_values(job: Job, values: Mapping[str, Any]) -> Job:
    """The job with dotted keys set, checked again, and without its sweep: what a trial trains.

    Raises:
        JobError: it does not hold with these values; its message has a line for each problem.
    """
    made, problems = _with_values(job, values)
    if made is None:
        raise JobError("\n".join(f"{'.'.join(loc)}: {text}" for loc, text in problems.items()))
    return made


def space_problems(job: Job, sweep: SweepOptions) -> Problems:
    """What is wrong with the space of a sweep as one over this job."""
    found = _problems_by_key(job, sweep.axes)
    return {(*SPACE, key): found[key] for key in sweep.space if key in found}


def _problems_by_key(job: Job, axes: Sequence[Axis]) -> dict[str, str]:
    """What is wrong with each axis, by making jobs at its ends."""
    problems = {axis.key: text for axis in axes if (text := refusal(axis))}
    allowed: dict[str, Axis] = {}
    for axis in axes:
        if axis.key not in problems and (axis.when is None or axis.when.key in allowed):
            allowed[axis.key] = axis
    axes = tuple(allowed.values())
    for axis in axes:
        for value in probes(axis):
            values = around(axes, axis.key, value)
            found = _with_values(job, values)[1]
            for loc in sorted(found, key=len, reverse=True):  # the deepest says most
                key, told = _blame(job, values, axis.key, loc, found[loc])
                problems.setdefault(key, told)
    return problems


def _blame(job: Job, values: Mapping[str, Any], key: str, loc: Loc, text: str) -> tuple[str, str]:
    """The key of a space that a problem is of: the one it is at, or the first without which it would not be there."""
    at = [name for name in values if loc[: len(parts := tuple(name.split(".")))] == parts]
    if at:
        return at[0], text
    without = {name: {other: values[other] for other in values if other != name} for name in values}
    guilty = [name for name in values if _with_values(job, without[name])[1].get(loc) != text] or [key]
    given = ", ".join(f"{name}: {values[name]}" for name in guilty)
    return guilty[0], f"{'.'.join(loc)}: {text}, with {given}"


def _with_values(job: Job, values: Mapping[str, Any]) -> tuple[Job | None, Problems]:
    # Without what is as by default: a file that a run has kept names it all, and another kind of model knows less.
    base = job.model_dump(mode="json", exclude_defaults=True, exclude={"sweep"})
    base.setdefault("model", {})["kind"] = job.model.kind
    try:
        plain = set_values(base, values)
    except SpaceError as error:
        return None, {tuple(error.key.split(".")): error.message}
    return validate(plain, dict.fromkeys([(), *_locs(plain, ())]))


def _locs(value: Any, parent: Loc) -> Iterator[Loc]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*parent, key)
        yield from _locs(inner, (*parent, key))
