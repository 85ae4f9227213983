"""A job's GAN made ready to be trained, and what must hold for that.

require_trainable(spec)             # without TensorFlow
program = make_gan(spec, sync)
"""

from __future__ import annotations

from typing import Any

from startup_ray.errors import UsageError
from startup_ray.job import GanOptions, TrainingOptions
from startup_ray.trainers.gan.recipes import base_of, recipe_of
from startup_ray.trainers.program import Spec

DECIDED = {
    "optimizer": "the recipe's",
    "optimizer_args": "the recipe's, and model.beta1",
    "learning_rate": "model.learning_rate",
    "ema": "model.ema",
    "augment": "model.augment",
    "monitor": "its FID",
    **dict.fromkeys(("label_smoothing", "class_weights", "weight_decay", "accumulate"), "nothing like it"),
    **dict.fromkeys(("freeze", "init_from", "xla", "early_stopping"), "nothing like it"),
}
"""Options of training that a GAN does not take, and what it has instead."""
PRECISIONS = ("auto", "float32")


def require_trainable(spec: Spec) -> None:
    """See that options and images fit a GAN.

    Raises:
        UsageError: a size that cannot be made, options that a GAN has not, a class without images.
    """
    options = options_of(spec)
    base_of(spec.image_shape)
    _require_known(spec.training)
    if options.conditional:
        empty = [name for name, rows in zip(spec.classes, spec.class_rows, strict=True) if not rows]
        if not spec.classes or empty:
            found = f"the class {empty[0]!r} has no training images" if empty else "the dataset has no labels"
            hint = "leave model.conditional out, or give the manifest's items a `label` each"
            raise UsageError(f"{found}, so none can be asked for", where="model.conditional", hint=hint)


def make_gan(spec: Spec, sync: Any) -> Any:
    """A `Gan` with the weights that the seed gives, at the first of its steps.

    Raises:
        UsageError: the images are of a size that cannot be made.
    """
    import keras
    import tensorflow as tf

    from startup_ray.trainers.gan.nets import build_discriminator, build_generator, build_sampler
    from startup_ray.trainers.gan.program import Gan
    from startup_ray.trainers.norm import synchronise

    options = options_of(spec)
    recipe, classes = recipe_of(options), len(spec.classes) if options.conditional else 0
    keras.utils.set_random_seed(spec.seed)
    keras.config.set_dtype_policy("float32")
    generator = build_generator(spec.image_shape, recipe, classes)
    discriminator = build_discriminator(spec.image_shape, recipe, classes)
    synchronise(generator, sync)
    return Gan(
        model=build_sampler(generator),
        generator=generator,
        discriminator=discriminator,
        g_optimizer=_optimizer(spec, generator),
        d_optimizer=_optimizer(spec, discriminator),
        average=[tf.Variable(weight.value, trainable=False) for weight in generator.trainable_variables],
        recipe=recipe,
        sync=sync,
        global_batch=spec.training.global_batch,
        num_classes=classes,
        seed=spec.seed,
        augment=options.augment,
    )


def options_of(spec: Spec) -> GanOptions:
    """`spec.model`, known to be a GAN's."""
    assert isinstance(spec.model, GanOptions)
    return spec.model


def _optimizer(spec: Spec, network: Any) -> Any:
    from startup_ray.trainers.optimizer import build_optimizer, make_optimizer

    recipe = recipe_of(options_of(spec))
    args = {"beta_1": recipe.beta1, "beta_2": recipe.beta2}
    own = {"optimizer": "adam", "learning_rate": recipe.learning_rate, "optimizer_args": args}
    options = spec.training.model_copy(update=own)
    made = make_optimizer(options, steps=spec.steps, steps_per_epoch=spec.steps_per_epoch)
    return build_optimizer(made, network.trainable_variables)


def _require_known(training: TrainingOptions) -> None:
    fields = TrainingOptions.model_fields
    for name, instead in DECIDED.items():
        if getattr(training, name) != fields[name].default:
            where = f"training.{name}"
            raise UsageError(f"a GAN does not take {where}", where=where, hint=f"leave it out; it has {instead}")
    if training.precision not in PRECISIONS:
        where = "training.precision"
        raise UsageError("a GAN computes in float32: its penalties need it", where=where, hint="leave it out")
