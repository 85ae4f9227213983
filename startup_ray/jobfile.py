"""Text of a job file -> Job, telling every error with its line and the way out.

jobs/x.yaml:7: training.epoch: unknown key, did you mean 'epochs'?
--set training.epochs=0: training.epochs: input should be greater than 0
jobs/x.yaml:9: sweep.space.training.epoch: unknown key, did you mean 'epochs'?

A job is a base for others: `with_values` sets dotted keys of it, as each trial of a sweep does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from startup_ray.errors import JobError
from startup_ray.job import Job
from startup_ray.options import KINDS, ApplicationOptions, CnnOptions, GanOptions, PythonOptions
from startup_ray.space import Axis, SpaceError, around, probes, set_values
from startup_ray.sweep_options import SweepOptions, refusal

Loc = tuple[str, ...]
Problems = dict[Loc, str]

SPACE = ("sweep", "space")
"""Its keys are dotted keys of the job, and one part of a place each."""

_MODELS = dict(zip(KINDS, (CnnOptions, ApplicationOptions, PythonOptions, GanOptions), strict=True))


def load_job(path: str | Path, set: Sequence[str] = ()) -> Job:  # noqa: A002 - the word users type
    """Read a job file.

    Args:
        path: a YAML file.
        set: overrides `dotted.key=value`, the value in YAML; later ones win.

    Raises:
        JobError: the file is missing or does not hold; its message has a line for each problem.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise JobError(f"cannot read the job file: {reason}", where=str(path)) from error
    return parse_job(text, set=set, path=str(path))


def parse_job(text: str, *, set: Sequence[str] = (), path: str = "job") -> Job:  # noqa: A002
    """The same for a text; `path` is only what errors call it."""
    values, places = _read_yaml(text, path)
    for override in set:
        places |= _apply(values, override)
    job, problems = _validate(values, places)
    if job is not None and job.sweep is not None:
        problems = _space_problems(job, job.sweep)
    if job is None or problems:
        raise JobError("\n".join(f"{_place(loc, places)}: {text}" for loc, text in problems.items()))
    return job


def with_values(job: Job, values: Mapping[str, Any]) -> Job:
    """The job with dotted keys set, checked again, and without its sweep: what a trial trains.

    Raises:
        JobError: it does not hold with these values; its message has a line for each problem.
    """
    made, problems = _with_values(job, values)
    if made is None:
        raise JobError("\n".join(f"{'.'.join(loc)}: {text}" for loc, text in problems.items()))
    return made


def _read_yaml(text: str, path: str) -> tuple[dict[str, Any], dict[Loc, str]]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobError(f"not YAML: {error.problem}", where=f"{path}:{line}") from error
    except yaml.YAMLError as error:
        raise JobError(f"not YAML: {error}", where=path) from error
    if not isinstance(values, dict):
        raise JobError("a job file is a mapping of sections", where=path, hint="see `startup-ray schema`")
    places: dict[Loc, str] = {(): path}
    for loc, line in _lines(root, ()):
        if loc in places:
            raise JobError(f"{'.'.join(loc)}: this key stands twice", where=f"{path}:{line}")
        places[loc] = f"{path}:{line}"
    return values, places


def _lines(node: yaml.Node | None, parent: Loc) -> Iterator[tuple[Loc, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            loc = (*parent, str(key.value))
            yield loc, key.start_mark.line + 1
            yield from _lines(value, loc)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*parent, str(i)), value.start_mark.line + 1


def _apply(values: dict[str, Any], override: str) -> dict[Loc, str]:
    """Set one dotted key in place; returns where errors about it are to be shown."""
    place = f"--set {override}"
    dotted, equals, text = override.partition("=")
    *parents, last = loc = _parts(dotted.strip())
    if not equals or not all(loc):
        raise JobError("expected key=value", where=place, hint="for example --set training.epochs=3")
    section: Any = values
    for i, key in enumerate(parents):
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise JobError(f"{'.'.join(loc[: i + 1])} is a value, not a section", where=place)
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError(f"the value is not YAML: {text!r}", where=place) from error
    return {loc[:i]: place for i in range(len(loc), 0, -1)}


def _parts(dotted: str) -> Loc:
    prefix = ".".join(SPACE) + "."
    return (*SPACE, dotted.removeprefix(prefix)) if dotted.startswith(prefix) else tuple(dotted.split("."))


def _validate(values: Mapping[str, Any], places: Mapping[Loc, Any]) -> tuple[Job | None, Problems]:
    """Of the problems of one place the first counts, as of a value that no member of a union takes."""
    try:
        return Job.model_validate(values), {}
    except ValidationError as error:
        problems = dict(_explain(detail, places) for detail in reversed(error.errors(include_url=False)))
        return None, dict(reversed(problems.items()))


def _place(loc: Loc, places: Mapping[Loc, str]) -> str:
    return f"{places[_known(loc, places)]}: {'.'.join(loc)}"


def _known(loc: Loc, places: Mapping[Loc, Any]) -> Loc:
    while loc not in places:
        loc = loc[:-1]
    return loc


def _explain(detail: ErrorDetails, places: Mapping[Loc, Any]) -> tuple[Loc, str]:
    """Where, and what is wrong there."""
    found = tuple(str(part) for part in detail["loc"])
    loc = _untagged(found)
    if detail["type"] == "extra_forbidden":
        text = "unknown key" + _suggest(loc[-1], _keys(found[:-1]))
    elif detail["type"] == "missing":
        text = "missing"
    elif detail["type"] == "kind":
        loc, given = (*loc, "kind"), detail["input"].get("kind")
        text = f"{detail['msg']}, not {given!r}"
    elif detail["type"] == "space":
        text = detail["msg"]
    else:
        loc = _known(loc, places) or loc  # not the names that pydantic gives to the members of a union
        text = detail["msg"].removeprefix("Value error, ")
        text = text[0].lower() + text[1:]
        text += f", not {detail['input']!r}" if isinstance(detail["input"], str | int | float) else ""
    return loc, text


def _untagged(loc: Loc) -> Loc:
    """A place without the kind of model, and without the types that pydantic puts in the place of members of unions."""
    if loc[:2] == SPACE:
        return loc
    if loc[0] == "model":
        return (*loc[:1], *loc[2:]) if loc[1:2] and loc[1] in KINDS else loc
    return tuple(part for part in loc if "[" not in part)


def _suggest(given: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, names, 1)
    return f", did you mean '{close[0]}'?" if close else f" (known: {', '.join(names)})"


def _keys(loc: Loc) -> list[str]:
    """Keys that the section at `loc` knows."""
    section: type[BaseModel] = Job
    for key in loc:
        annotation: Any = _MODELS.get(key) or section.model_fields[key].annotation
        section = next(iter(get_args(annotation)), annotation)  # of `SweepOptions | None` the first
    return list(section.model_fields)


def _with_values(job: Job, values: Mapping[str, Any]) -> tuple[Job | None, Problems]:
    # Without what is as by default: a file that a run has kept names it all, and another kind of model knows less.
    base = job.model_dump(mode="json", exclude_defaults=True, exclude={"sweep"})
    base.setdefault("model", {})["kind"] = job.model.kind
    try:
        plain = set_values(base, values)
    except SpaceError as error:
        return None, {tuple(error.key.split(".")): error.message}
    return _validate(plain, dict.fromkeys([(), *_locs(plain, ())]))


def _locs(value: Any, parent: Loc) -> Iterator[Loc]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*parent, key)
        yield from _locs(inner, (*parent, key))


def _space_problems(job: Job, sweep: SweepOptions) -> Problems:
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
