"""Text of a job file -> Job, telling every error with its line and the way out.

jobs/x.yaml:7: training.epoch: unknown key, did you mean 'epochs'?
--set training.epochs=0: training.epochs: input should be greater than 0
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from startup_ray.errors import JobError
from startup_ray.job import Job
from startup_ray.options import KINDS, ApplicationOptions, CnnOptions, GanOptions, PythonOptions

Loc = tuple[str, ...]

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
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        problems = dict(_explain(detail, places, path) for detail in reversed(error.errors(include_url=False)))
        raise JobError("\n".join(f"{place}: {text}" for place, text in reversed(problems.items()))) from error


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
    *parents, last = loc = tuple(dotted.strip().split("."))
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


def _explain(detail: ErrorDetails, places: Mapping[Loc, str], path: str) -> tuple[str, str]:
    """Where, and what is wrong there. Of a value that no member of a union takes the first one's word counts."""
    found = tuple(str(part) for part in detail["loc"])
    loc = _untagged(found)
    known = loc
    while known not in places:
        known = known[:-1]
    if detail["type"] == "extra_forbidden":
        text = "unknown key" + _suggest(loc[-1], _keys(found[:-1]))
    elif detail["type"] == "missing":
        text = "missing"
    elif detail["type"] == "kind":
        loc, given = (*loc, "kind"), detail["input"].get("kind")
        text = f"{detail['msg']}, not {given!r}"
    else:
        loc = known or loc  # not the names that pydantic gives to the members of a union
        text = detail["msg"].removeprefix("Value error, ")
        text = text[0].lower() + text[1:]
        text += f", not {detail['input']!r}" if isinstance(detail["input"], str | int | float) else ""
    return f"{places.get(known, path)}: {'.'.join(loc)}", text


def _untagged(loc: Loc) -> Loc:
    """A place without the kind of model, and without the types that pydantic puts in the place of members of unions."""
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
        section = _MODELS[key] if key in _MODELS else section.model_fields[key].annotation  # type: ignore[assignment]
    return list(section.model_fields)
