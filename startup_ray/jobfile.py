"""Text of a job file -> Job, telling every error with its line and the way out.

jobs/x.yaml:7: training.epoch: unknown key, did you mean 'epochs'?
--set training.epochs=0: training.epochs: input should be greater than 0
jobs/x.yaml:9: sweep.space.training.epoch: unknown key, did you mean 'epochs'?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from startup_ray.errors import JobError
from startup_ray.job import Job
from startup_ray.jobcheck import SPACE, Loc, known, validate
from startup_ray.jobspace import space_problems


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
    job, problems = validate(values, places)
    if job is not None and job.sweep is not None:
        problems = space_problems(job, job.sweep)
    if job is None or problems:
        raise JobError("\n".join(f"{_place(loc, places)}: {text}" for loc, text in problems.items()))
    return job


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


def _place(loc: Loc, places: Mapping[Loc, str]) -> str:
    return f"{places[known(loc, places)]}: {'.'.join(loc)}"
