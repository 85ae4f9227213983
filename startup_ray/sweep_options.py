"""The section of a job file that a sweep uses: what is searched, how, and for how long."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from startup_ray.merit import is_lower_better
from startup_ray.options import (
    ApplicationOptions,
    CnnOptions,
    GanOptions,
    ModelOptions,
    PythonOptions,
    TrainingOptions,
    monitor_of,
)
from startup_ray.section import Section
from startup_ray.space import Axis, SpaceError, grid
from startup_ray.space_text import QUOTES, parse_axis, parse_space

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smhd])\s*"
_ELSEWHERE = {
    "name": "it changes no result of training",
    "seed": "chance is no setting: `confirm` trains the best configurations again with fresh seeds",
    "storage": "it changes no result of training",
    "ingest": "it makes another dataset, and results on two datasets do not compare: one sweep for each dataset",
    "scaling": "it changes speed, but no result of training",
    "evaluation": "it changes how a model is judged, not the model",
    "sweep": "it is how to search, not what is searched",
}
_NO_RESULT = {
    **dict.fromkeys(["training.monitor", "model.watch_samples"], "all trials have to be judged alike"),
    **dict.fromkeys(["training.keep", "training.checkpoint_every_steps"], "it changes no result"),
    **dict.fromkeys(["training.steps_per_call", "training.feed", "training.cache_limit"], "it changes no result"),
}
_SEARCHED: tuple[tuple[str, type[Section]], ...] = (
    ("training", TrainingOptions),
    *(("model", section) for section in (CnnOptions, ApplicationOptions, PythonOptions, GanOptions)),
)


def _seconds(value: Any) -> Any:
    """`90s`, `30m`, `1.5h` -> seconds; numbers are left for pydantic to judge."""
    if not isinstance(value, str):
        return value
    parts = re.fullmatch(_DURATION, value)
    if parts is not None:
        return float(parts[1]) * _UNITS[parts[2]]
    try:
        return float(value)
    except ValueError:
        raise ValueError("a time is written 90s, 30m, 2h or 1d") from None


Seconds = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False),
    BeforeValidator(_seconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_DURATION}$"}]}
    ),
]


class SweepOptions(Section):
    metric: str | None = Field(
        None,
        pattern=r"^(train|val)/\w+$",
        description="what is searched for, as training reports it; by default what training.monitor says, val/fid of a "
        "GAN",
    )
    mode: Literal["max", "min"] | None = Field(
        None, description="whether more of the metric is better; by default min for losses and distances, else max"
    )
    searcher: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="tpe learns from the trials before; random; grid: every combination, in order"
    )
    scheduler: Literal["asha", "none"] = Field(
        "asha", description="asha stops trials that fall behind; none stops none"
    )
    trials: PositiveInt = Field(20, description="configurations to try, at most")
    budget: Seconds | None = Field(None, description="wall time of the whole search: 90s, 30m, 2h; a number is seconds")
    epochs: PositiveInt | None = Field(None, description="epochs of all trials together, at most")
    trial: Literal["slot", "nested"] = Field(
        "slot",
        description="slot: one worker in a process that is used again; nested: scaling.workers workers of Ray Train "
        "each",
    )
    slots: PositiveInt | None = Field(
        None, description="trials at the same time; by default as many as the cluster has room for"
    )
    min_epochs: PositiveInt = Field(1, description="epochs before asha may stop a trial")
    reduction: int = Field(4, ge=2, description="asha keeps one of so many trials at each of its looks")
    confirm: int = Field(3, ge=0, description="best configurations that are trained again with fresh seeds")
    seeds: PositiveInt = Field(3, description="fresh seeds of each of them")
    test: bool = Field(False, description="evaluate the winner on the test split, once, at the end; needs confirm")
    space: dict[str, str] = Field(
        min_length=1,
        description="dotted keys of model and training with uniform(a, b), loguniform(a, b), int(a, b), logint(a, b) "
        "or choice(v1, v2), and `if KEY == VALUE` behind it",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _readable(cls, space: Any) -> Any:
        errors = _errors(space) if isinstance(space, dict) else []
        if errors:
            raise _at_keys(errors)
        return space

    @model_validator(mode="after")
    def _fits(self) -> SweepOptions:
        if self.test and not self.confirm:
            raise ValueError("test needs confirm, which finds the winner: set confirm to 1 or more")
        if self.searcher == "grid":
            try:
                grid(self.axes)
            except SpaceError as error:
                raise _at_keys([error], "space") from None
        return self

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The space, read."""
        return parse_space(self.space)


def metric_of(options: SweepOptions, model: ModelOptions, training: TrainingOptions) -> str:
    """What the trials of a sweep are compared by."""
    return options.metric or monitor_of(model, training)


def mode_of(options: SweepOptions, metric: str) -> Literal["max", "min"]:
    """Whether more or less of it is better."""
    return options.mode or ("min" if is_lower_better(metric) else "max")


def refusal(axis: Axis) -> str | None:
    """Why a key may not be searched, in words; None if it may."""
    root, _, below = axis.key.partition(".")
    if root in _ELSEWHERE:
        return f"only keys of model and training are searched: {_ELSEWHERE[root]}"
    if root not in ("model", "training") or not below:
        known = [f"{name}.{key}" for name, section in _SEARCHED for key in section.model_fields]
        close = [name for name in known if name.endswith(f".{axis.key}")] or difflib.get_close_matches(
            axis.key, known, 1
        )
        return (
            f"unknown key, did you mean '{close[0]}'?" if close else "unknown key (known: those of model and training)"
        )
    if axis.key in _NO_RESULT:
        return f"not searched: {_NO_RESULT[axis.key]}"
    if axis.key == "model.kind" and "gan" in axis.choices:
        return "not searched: a GAN is judged by other metrics than a classifier: one sweep for each"
    return None


def _errors(space: dict[Any, Any]) -> list[SpaceError]:
    """What is wrong with each key, or else with the space as a whole."""
    found: list[SpaceError] = []
    without_value: list[SpaceError] = []
    for key, text in space.items():
        try:
            parse_axis(key, text)
        except SpaceError as error:
            (without_value if text is None else found).append(error)
    if not any(QUOTES in error.message for error in found):  # else they are only what YAML cut off another value
        found += without_value
    if not found:
        try:
            parse_space(space)
        except SpaceError as error:
            found.append(error)
    return found


def _at_keys(errors: Sequence[SpaceError], *above: str) -> ValidationError:
    """An error that pydantic puts at the keys, and not at the section."""
    return ValidationError.from_exception_data(
        "space",
        [
            InitErrorDetails(
                type=PydanticCustomError("space", "{text}", {"text": error.message}),
                loc=(*above, error.key),
                input=error.key,
            )
            for error in errors
        ],
    )
