"""What a GAN's recipe decides: the numbers that the job leaves open, and the sizes of images it can be built for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from startup_ray.errors import UsageError
from startup_ray.job import GanOptions

BASES = range(4, 8)
"""Pixels of a side at which a generator begins. Every doubling of 4 to 7 is reached by one of them alone."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All numbers of a GAN."""

    loss: Literal["non_saturating", "relativistic"]
    noise: int
    width: int
    batch_norm: bool
    """In the generator; a discriminator that mixes rows could not judge real and generated ones in one pass."""
    learning_rate: float
    beta1: float
    beta2: float
    gamma: float
    """Weight of the gradient penalties on real and on generated images; 0: none."""
    ema: float


DCGAN = Recipe(
    loss="non_saturating",
    noise=100,
    width=64,
    batch_norm=True,
    learning_rate=2e-4,
    beta1=0.5,
    beta2=0.999,
    gamma=0.0,
    ema=0.995,
)
"""Radford et al., arXiv:1511.06434, with the loss taken from logits (Goodfellow et al., arXiv:1406.2661)."""

R3GAN = Recipe(
    loss="relativistic",
    noise=64,
    width=32,
    batch_norm=False,
    learning_rate=1e-3,
    beta1=0.0,
    beta2=0.99,
    gamma=1.0,
    ema=0.995,
)
"""Huang et al., arXiv:2501.05441: a relativistic pairing loss with R1 and R2, and nothing that normalises."""

_RECIPES = {"dcgan": DCGAN, "r3gan": R3GAN}


def recipe_of(options: GanOptions) -> Recipe:
    """The recipe with what the job says otherwise."""
    made = _RECIPES[options.recipe]
    own = {name: getattr(options, name) for name in ("noise", "width", "learning_rate", "beta1", "gamma", "ema")}
    return replace(made, **{name: value for name, value in own.items() if value is not None})


def base_of(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Height and width at which the generator begins, and how often it doubles them.

    Raises:
        UsageError: the size is not one of BASES times a power of two, the same for both sides, or there is opacity.
    """
    height, width, channels = image_shape
    if channels == 4:
        hint = "set it to 3: transparent parts are drawn over white"
        raise UsageError("a GAN makes images without transparency", where="ingest.image.channels", hint=hint)
    doublings = _doublings(min(height, width))
    base_height, base_width = height >> doublings, width >> doublings
    fits = base_height << doublings == height and base_width << doublings == width
    if doublings < 1 or not fits or max(base_height, base_width) > 2 * BASES[-1] + 1:
        raise UsageError(
            f"a GAN cannot make images of {height}x{width} pixels: sides are 4, 5, 6 or 7 times a power of two",
            where="ingest.image.size",
            hint=f"the nearest sizes are {_nearest(height)} and {_nearest(width)}"
            if height != width
            else f"the nearest such size is {_nearest(height)}",
        )
    return base_height, base_width, doublings


def _doublings(side: int) -> int:
    """How often `side` halves down to BASES, rounded down on the way."""
    count = 0
    while side > BASES[-1]:
        side, count = side // 2, count + 1
    return count


def _nearest(side: int) -> int:
    sizes = (base << count for base in BASES for count in range(1, 12))
    distance: Callable[[int], tuple[int, int]] = lambda size: (abs(size - side), -size)  # noqa: E731
    return min(sizes, key=distance)
