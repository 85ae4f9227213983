"""What the sections of a job file are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def _scaled(value: Any) -> Any:
    """`20MB`, `50M`, `1.5 GiB` -> int; anything else is left for pydantic to judge."""
    if not isinstance(value, str):
        return value
    text = value.strip().upper().removesuffix("B")
    digits = text.rstrip("KMGI")
    scale = _SUFFIXES.get(text[len(digits) :])
    try:
        return value if scale is None else int(float(digits) * scale)
    except (ValueError, OverflowError):
        return value


Scaled = Annotated[PositiveInt, BeforeValidator(_scaled)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
