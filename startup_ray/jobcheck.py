"""Values of a job -> Job, or what is wrong with them: place by place, in words, with the way out.

Whoever knows where the values come from, a file (`jobfile.py`) or a trial (`jobspace.py`), puts that before a place.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from startup_ray.job import Job
from startup_ray.options import KINDS, ApplicationOptions, CnnOptions, GanOptions, PythonOptions

Loc = tuple[str, ...]
Problems = dict[Loc, str]

SPACE = ("sweep", "space")
"""Its keys are dotted keys of the job, and one part of a place each."""

_MODELS = dict(zip(KINDS, (CnnOptions, ApplicationOptions, PythonOptions, GanOptions), strict=True))


def validate(values: Mapping[str, Any], places: Mapping[Loc, Any]) -> tuple[Job | None, Problems]:
    """Of the problems of one place the first counts, as of a value that no member of a union takes."""
    try:
        return Job.model_validate(values), {}
    except ValidationError as error:
        problems = dict(_explain(detail, places) for detail in reversed(error.errors(include_url=False)))
        return None, dict(reversed(problems.items()))


def known(loc: Loc, places: Mapping[Loc, Any]) -> Loc:
    """The deepest place at or above `loc` that `places` has."""
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
        loc = known(loc, places) or loc  # not the names that pydantic gives to the members of a union
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
