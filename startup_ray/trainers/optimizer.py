"""The optimizer of a job, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from startup_ray.errors import UsageError, first_line
from startup_ray.job import TrainingOptions

NO_DECAY = ("bias", "gamma", "beta")
"""Weights that do not decay: He et al., arXiv:1812.01187."""


def make_optimizer(options: TrainingOptions, *, steps: int, steps_per_epoch: int) -> Any:
    """Keras' optimizer with clipping of the global norm, decay, and a moving average of the weights, as asked for.

    Args:
        steps: of the whole run, which a falling learning rate needs to know.

    Raises:
        UsageError: it does not know an argument of `optimizer_args`.
    """
    kind, where = _KINDS[options.optimizer], "training.optimizer_args"
    if "gradient_accumulation_steps" in options.optimizer_args:
        raise UsageError("gradients are accumulated within a step", where=where, hint="use training.accumulate")
    decay = {} if options.weight_decay is None else {"weight_decay": options.weight_decay}  # AdamW takes no None
    try:
        optimizer = kind(
            learning_rate=Rate(options, steps=steps, steps_per_epoch=steps_per_epoch),
            global_clipnorm=options.clip_norm,
            use_ema=options.ema is not None,
            ema_momentum=options.ema or 0.0,
            **decay,
            **options.optimizer_args,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer {options.optimizer}: {first_line(error)}", where=where) from error
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(NO_DECAY))
    return optimizer


def build_optimizer(optimizer: Any, variables: Any) -> Any:
    """An optimizer with its variables made, which scales losses where weights are trained in float16.

    Loss scaling: Micikevicius et al., arXiv:1710.03740.
    """
    if keras.config.dtype_policy().name == "mixed_float16" and not hasattr(optimizer, "inner_optimizer"):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


class Rate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rises in a line over `warmup_steps` to its peak, then stays, falls as half a cosine to zero, or falls in steps.

    Cosine: Loshchilov & Hutter, arXiv:1608.03983, without restarts. Warm-up: Goyal et al., arXiv:1706.02677.
    """

    def __init__(self, options: TrainingOptions, *, steps: int, steps_per_epoch: int) -> None:
        self.options, self.steps, self.steps_per_epoch = options, steps, steps_per_epoch

    def __call__(self, step: Any) -> Any:
        """Step, from 0 -> float32 learning rate."""
        options = self.options
        step = ops.cast(step, "float32")
        rate = options.learning_rate * ops.minimum((step + 1) / (options.warmup_steps + 1), 1.0)
        if options.schedule == "cosine":
            left = max(self.steps - options.warmup_steps, 1)
            rate *= (1 + ops.cos(math.pi * ops.clip((step - options.warmup_steps) / left, 0.0, 1.0))) / 2
        elif options.schedule == "step":
            falls = ops.floor(step / (options.decay_epochs * self.steps_per_epoch))
            rate *= ops.power(options.decay_factor, falls)
        return rate


_KINDS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "adamax": keras.optimizers.Adamax,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "ftrl": keras.optimizers.Ftrl,
    "adafactor": keras.optimizers.Adafactor,
}
