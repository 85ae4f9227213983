"""One pass of a GAN: the gradients of both networks from one look of the discriminator at real and generated images.

The discriminator is convolutions, each followed by LeakyReLU, and a dense layer. It judges each row for itself, and
near a row it is linear, because bends stand still. So the slopes of the rows' logits, computed once from the last layer
to the pixels, serve three times:
- at the pixels they are what R1 and R2 punish, and times the slope of the loss what the generator is told;
- at each layer, times what goes into it, they are the gradient of the loss by its weights;
- and the gradient of the penalty too, if what goes in is replaced by what the slopes at the pixels become on their way
  forward through the bends: that of a squared norm is the derivative in its own direction (Pearlmutter 1994,
  doi:10.1162/neco.1994.6.1.147).
Both gradients together take one product for each layer, and second derivatives are never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

SUMS = ("d_loss", "g_loss", "real_hits", "fake_hits", "penalty")
PADDING = "SAME"


@dataclass(frozen=True, kw_only=True)
class Pass:
    d_gradients: list[Any]
    g_gradients: list[Any]
    sums: Any
    """float32 [len(SUMS)] of these rows: losses and penalty as shares of the global batch's mean, hits as counts."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the losses say of b real and b generated images."""

    by_logits: Any
    """Slope of the discriminator's loss by each logit, float32 [2b]."""
    towards: Any
    """Slope of the generator's loss by the logits of its images, float32 [b]."""
    sums: list[Any]
    """`SUMS` but for the penalty."""


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Of rows' logits, and what they are multiplied with."""

    logits: Any
    """float32 [n]"""
    inputs: list[Any]
    """Of each convolution, and of the dense layer flat."""
    bent: list[Any]
    """Of each LeakyReLU, what goes into it."""
    slopes: list[Any]
    """Of the logits by what each convolution gives."""
    pixels: Any
    """Of the logits by the images; of the generated ones alone where no more is asked for."""


def fused(
    generator: Any,
    discriminator: Any,
    real: Any,
    inputs: Any,
    pick: Any,
    *,
    loss: str,
    gamma: float,
    global_batch: int,
    change: Callable[[Any], Any] | None = None,
) -> Pass:
    """Both gradients, each of this worker's share of its loss.

    Args:
        real: float32 [b, H, W, C] in [-1, 1].
        inputs: of the generator, b rows.
        pick: float32 [b, L], one-hot: which of the L logits counts for a row, real or generated.
        loss: `non_saturating` (Goodfellow et al. 2014, arXiv:1406.2661) or `relativistic`, which pairs each generated
            image with a real one (Jolicoeur-Martineau, arXiv:1807.00734).
        gamma: weight of R1 and R2, half the squared gradient by the pixels (Mescheder et al., arXiv:1801.04406).
        change: augmentation of images [2b, H, W, C], real ones first: of each row alone, and affine in its pixels.
    """
    rows, share = real.shape[0], 1.0 / global_batch
    with tf.GradientTape() as tape:
        fake = generator(inputs, training=True)
    images, picks = tf.concat([real, tf.stop_gradient(fake)], 0), tf.concat([pick, pick], 0)
    found, pixels = _look(discriminator, images, picks, change, first=0 if gamma else rows)
    judged = _judge(found.logits[:rows], found.logits[rows:], loss, share)
    along, penalty = None, tf.constant(0.0)
    if gamma:
        penalty = tf.reduce_sum(tf.square(pixels)) * (gamma / 2 * share)
        along = gamma * share * pixels
        along = along if change is None else change(along) - change(tf.zeros_like(along))
    weights = [variable.value for variable in generator.trainable_variables]
    upstream = tf.reshape(judged.towards, [-1, 1, 1, 1]) * pixels[-rows:]
    return Pass(
        d_gradients=_gradients(discriminator, found, picks, judged.by_logits, along),
        g_gradients=tape.gradient(fake, weights, output_gradients=upstream),
        sums=tf.stack([*judged.sums, penalty]),
    )


def _judge(on_real: Any, on_fake: Any, loss: str, share: float) -> Judged:
    """Logits float32 [b] of real and of generated images -> losses and their slopes."""
    is_paired = loss == "relativistic"
    zero = tf.zeros_like(on_real)
    rival_of_real, rival_of_fake = (on_fake, on_real) if is_paired else (zero, zero)
    losses = tf.nn.softplus(rival_of_real - on_real)
    if not is_paired:  # a pair has one loss
        losses += tf.nn.softplus(on_fake)
    of_real, of_fake = -tf.sigmoid(rival_of_real - on_real), tf.sigmoid(on_fake - rival_of_fake)
    return Judged(
        by_logits=tf.concat([of_real, of_fake], 0) * share,
        towards=-tf.sigmoid(rival_of_fake - on_fake) * share,
        sums=[
            tf.reduce_sum(losses) * share,
            tf.reduce_sum(tf.nn.softplus(rival_of_fake - on_fake)) * share,
            tf.reduce_sum(tf.cast(on_real > rival_of_real, tf.float32)),
            tf.reduce_sum(tf.cast(on_fake < rival_of_fake, tf.float32)),
        ],
    )


def _look(
    discriminator: Any, images: Any, picks: Any, change: Callable[[Any], Any] | None, *, first: int
) -> tuple[Slopes, Any]:
    """The slopes, and those by the pixels as they were before the change, at least from row `first` on."""
    if change is None:
        found = _slopes(discriminator, images, picks, first)
        return found, found.pixels
    with tf.GradientTape() as tape:
        tape.watch(images)
        seen = change(images)
    found = _slopes(discriminator, seen, picks, 0)
    return found, tape.gradient(seen, images, output_gradients=found.pixels)


def _slopes(discriminator: Any, images: Any, picks: Any, first: int) -> Slopes:
    """Forward, and back to the pixels of the rows from `first` on with 1 at each row's logit."""
    convolutions, bends, dense = layers_of(discriminator)
    inputs, bent, x = [], [], images
    for convolution, bend in zip(convolutions, bends, strict=True):
        inputs.append(x)
        bent.append(convolution(x))
        x = bend(bent[-1])
    inputs.append(tf.reshape(x, [x.shape[0], -1]))
    logits = tf.reduce_sum(dense(inputs[-1]) * picks, 1)
    back = tf.reshape(tf.matmul(picks, dense.kernel, transpose_b=True), tf.shape(x))
    slopes = []
    for i in reversed(range(len(convolutions))):
        slopes.append(_bend(back, bent[i], bends[i]))
        back, before = (slopes[-1], inputs[i]) if i else (slopes[-1][first:], inputs[i][first:])
        convolution = convolutions[i]
        back = tf.nn.conv2d_transpose(back, convolution.kernel, before.shape, convolution.strides, padding=PADDING)
    return Slopes(logits=logits, inputs=inputs, bent=bent, slopes=slopes[::-1], pixels=back)


def _gradients(discriminator: Any, found: Slopes, picks: Any, weights: Any, along: Any | None) -> list[Any]:
    """By the discriminator's variables: of the sum over rows of weight * logit, and of the slope along a direction.

    Args:
        weights: float32 [n]; of the logits.
        along: [n, H, W, C], a direction for each row; None for none.
    """
    convolutions, bends, dense = layers_of(discriminator)
    by_row = tf.reshape(weights, [-1, 1, 1, 1])
    gradients = []
    x = None if along is None else by_row * found.inputs[0] + along
    for i, (convolution, bend) in enumerate(zip(convolutions, bends, strict=True)):
        slopes = found.slopes[i]
        weighted = by_row * slopes
        into, out = (found.inputs[i], weighted) if x is None else (x, slopes)
        gradients += [_by_kernel(into, out, convolution), tf.reduce_sum(weighted, [0, 1, 2])]
        if x is not None:
            x = tf.nn.conv2d(x, convolution.kernel, convolution.strides, PADDING) + by_row * convolution.bias
            x = _bend(x, found.bent[i], bend)
    chosen = picks * weights[:, None]
    flat, by_logit = (found.inputs[-1], chosen) if x is None else (tf.reshape(x, [x.shape[0], -1]), picks)
    gradients.append(tf.matmul(flat, by_logit, transpose_a=True))
    return [*gradients, *([tf.reduce_sum(chosen, 0)] if dense.use_bias else [])]


def layers_of(discriminator: Any) -> tuple[list[Any], list[Any], Any]:
    """Its convolutions, their LeakyReLUs, and its dense layer."""
    kinds = keras.layers
    of_kind = [
        [layer for layer in discriminator.layers if isinstance(layer, kind)] for kind in (kinds.Conv2D, kinds.LeakyReLU)
    ]
    return of_kind[0], of_kind[1], discriminator.layers[-1]


def _bend(values: Any, into: Any, layer: Any) -> Any:
    """Values times the slope of a LeakyReLU at what went into it."""
    return tf.raw_ops.LeakyReluGrad(gradients=values, features=into, alpha=float(layer.negative_slope))


def _by_kernel(into: Any, out: Any, convolution: Any) -> Any:
    strides = [1, *convolution.strides, 1]
    kernel = convolution.kernel.shape
    return tf.raw_ops.Conv2DBackpropFilter(
        input=into, filter_sizes=list(kernel), out_backprop=out, strides=strides, padding=PADDING
    )
