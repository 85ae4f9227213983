"""A job's model made ready to be trained: network, objective and optimizer put together and checked.

program = make_program(spec, sync, gpu="8.0")
notes = examine(spec)               # the same, to see before anything is started that it can be done
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from startup_ray.errors import UsageError
from startup_ray.job import GanOptions, ModelOptions, TrainingOptions
from startup_ray.options import monitor_of
from startup_ray.usercode import WHERE, Code

COMPILED = (
    *("optimizer", "optimizer_args", "learning_rate", "schedule", "warmup_steps", "weight_decay", "clip_norm"),
    *("label_smoothing", "ema"),
)
"""Options of training that a model which its user has compiled decides itself."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All that a program is made from; it pickles."""

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    class_rows: tuple[int, ...]
    """Training rows of each class; of all together where rows without a label are trained on."""
    model: ModelOptions
    training: TrainingOptions
    seed: int
    code: Code | None = None
    """Where a user's own model comes from."""
    workers: int = 1
    """Most that train together."""
    features: str = ""
    """What a GAN's images are judged by, if it is not trained for that: see `gan.judge.read_judge`."""

    @property
    def monitor(self) -> str:
        """By which metric an epoch is the best."""
        return monitor_of(self.model, self.training)

    @property
    def takes_unlabelled(self) -> bool:
        """Whether rows without a label are trained on."""
        return isinstance(self.model, GanOptions) and not self.model.conditional

    @property
    def steps_per_epoch(self) -> int:
        return sum(self.class_rows) // self.training.global_batch

    @property
    def steps(self) -> int:
        return self.training.steps or self.training.epochs * self.steps_per_epoch

    @property
    def epochs(self) -> int:
        """The last may be a part of one."""
        return -(-self.steps // self.steps_per_epoch)


def make_program(spec: Spec, sync: Any, *, gpu: str = "") -> Any:
    """A `Classifier`, or a `Gan`, with the weights that the seed gives, at the first of its steps.

    Args:
        gpu: compute capability of this worker's GPU, such as "8.0"; empty: it computes on CPUs.

    Raises:
        UsageError: what the job asks for cannot be built, or the model does not keep the contract.
    """
    if isinstance(spec.model, GanOptions):
        from startup_ray.trainers.gan.build import make_gan

        return make_gan(spec, sync)
    import keras

    from startup_ray.trainers import contract
    from startup_ray.trainers.cnn import Classifier
    from startup_ray.trainers.models import build_network
    from startup_ray.trainers.norm import synchronise
    from startup_ray.trainers.objective import cross_entropy, take_compiled
    from startup_ray.trainers.optimizer import build_optimizer, make_optimizer
    from startup_ray.trainers.warm import freeze

    training = spec.training
    keras.utils.set_random_seed(spec.seed)
    keras.config.set_dtype_policy(precision(training.precision, gpu))
    network = build_network(spec.image_shape, len(spec.classes), spec.model, spec.code)
    if spec.code is not None:
        contract.require(network, spec.image_shape, len(spec.classes))
    freeze(network, training.freeze)
    synchronise(network, sync)
    if network.compiled:
        _require_undecided(training)
        objective, optimizer = take_compiled(network, len(spec.classes))
    else:
        objective = cross_entropy(training.label_smoothing)
        optimizer = make_optimizer(training, steps=spec.steps, steps_per_epoch=spec.steps_per_epoch)
    program = Classifier(
        model=network,
        optimizer=build_optimizer(optimizer, network.trainable_variables),
        objective=objective,
        sync=sync,
        global_batch=training.global_batch,
        num_classes=len(spec.classes),
        augment=training.augment,
        seed=spec.seed,
        class_weights=class_weights(training.class_weights, spec.classes, spec.class_rows),
        accumulate=training.accumulate,
    )
    return _with_xla(program, spec, gpu=bool(gpu))


def examine(spec: Spec) -> str:
    """Build the program, and take the weights of `init_from`, as a worker would; returns what is to be told.

    Raises:
        UsageError: it cannot be done.
    """
    from startup_ray.trainers.sync import alone

    return begin_with(make_program(spec, alone()).model, spec.training.init_from)


def begin_with(model: Any, init_from: str | None) -> str:
    """Take over the weights that `training.init_from` names; returns a line about them, empty if it names none."""
    if init_from is None:
        return ""
    from startup_ray.trainers.scoring import load_model, model_at
    from startup_ray.trainers.warm import take_weights

    return take_weights(model, load_model(*model_at(init_from)))


def needs_examination(spec: Spec) -> bool:
    """Whether only Keras can tell that the job can be done; options of a CNN or GAN are checked without it."""
    if isinstance(spec.model, GanOptions):
        return False
    training = spec.training
    asks = training.optimizer_args or training.freeze or training.init_from or training.xla is True
    return spec.model.kind != "cnn" or bool(asks)


def class_weights(
    wanted: str | Mapping[str, float], classes: Sequence[str], class_rows: Sequence[int]
) -> tuple[float, ...]:
    """Factor of each class; empty if all are 1. Balanced: rows / (classes * rows of the class), as scikit-learn's.

    Raises:
        UsageError: it names a class that the dataset has not.
    """
    if not wanted:
        return ()
    if isinstance(wanted, str):
        return tuple(sum(class_rows) / (len(classes) * max(rows, 1)) for rows in class_rows)
    unknown = sorted(set(wanted) - set(classes))
    if unknown:
        hint = f"its classes: {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}"
        raise UsageError(f"the dataset has no class {unknown[0]!r}", where="training.class_weights", hint=hint)
    return tuple(wanted.get(name, 1.0) for name in classes)


def precision(wanted: str, gpu: str) -> str:
    """Name of a Keras dtype policy. Auto: bfloat16 from compute capability 8.0, float16 from 7.0 on."""
    if wanted != "auto":
        return wanted
    capability = float(gpu or 0)
    return "mixed_bfloat16" if capability >= 8 else "mixed_float16" if capability >= 7 else "float32"


def _with_xla(program: Any, spec: Spec, *, gpu: bool) -> Any:
    """The program, compiled if that is wanted and can be. Auto: on GPUs alone; on CPUs it is slower."""
    wanted = spec.training.xla
    if wanted is False or (wanted == "auto" and not gpu):
        return program
    compiled = replace(program, xla=True)
    # What workers send each other within a pass, as BatchNormalization does, cannot be compiled.
    is_joined = spec.workers > 1 and len(program.messages()) > 1
    reason = "workers add up within a pass" if is_joined else compiled.compiles(spec.image_shape)
    if reason and wanted is True:
        raise UsageError(f"xla cannot compile this model: {reason}", where="training.xla", hint="leave it at auto")
    return program if reason else compiled


def _require_undecided(training: TrainingOptions) -> None:
    fields = TrainingOptions.model_fields
    for name in COMPILED:
        if getattr(training, name) != fields[name].default:
            raise UsageError(
                f"training.{name} is set, but the model that {WHERE} returns is compiled, with an optimizer of its own",
                where=f"training.{name}",
                hint="leave it out and hand it over in model.args, or return a model that is not compiled",
            )
