"""The optimizer of a job, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from startup_ray.job import TrainingOptions


def make_optimizer(options: TrainingOptions, steps: int) -> Any:
    """Adam (Kingma & Ba, arXiv:1412.6980) with clipping of the global norm and a moving average, if asked for.

    Args:
        steps: of the whole run, which a falling learning rate needs to know.
    """
    return keras.optimizers.Adam(
        Rate(options.learning_rate, options.schedule, options.warmup_steps, steps),
        global_clipnorm=options.clip_norm,
        use_ema=options.ema is not None,
        ema_momentum=options.ema or 0.0,
    )


class Rate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rises in a line over `warmup` steps to `peak`, then stays, or falls as half a cosine to zero at `steps`.

    Cosine: Loshchilov & Hutter, arXiv:1608.03983, without restarts. Warm-up: Goyal et al., arXiv:1706.02677.
    """

    def __init__(self, peak: float, schedule: str, warmup: int, steps: int) -> None:
        self.peak, self.schedule, self.warmup, self.steps = peak, schedule, warmup, steps

    def __call__(self, step: Any) -> Any:
        """Step, from 0 -> float32 learning rate."""
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1) / (self.warmup + 1), 1.0)
        if self.schedule == "constant":
            return self.peak * rise
        share = ops.clip((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
        return self.peak * rise * (1 + ops.cos(math.pi * share)) / 2
