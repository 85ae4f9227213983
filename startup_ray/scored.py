"""What a classifier's logits say of rows, worked out once for all who ask: probabilities, classes, log-loss.

rows = ScoredRows.of(labels, logits)
rows.scores, rows.predicted, rows.losses
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

_MAX_LOSS = -math.log(np.finfo(np.float64).eps)  # where scikit-learn's log_loss clips probabilities


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRows:
    """N rows, C classes."""

    labels: np.ndarray
    """int64 [N]; -1 is none, C and above a class that the model does not know."""
    logits: np.ndarray
    """float [N, C]"""
    scores: np.ndarray
    """Probabilities float64 [N, C]; NaN where a row's logits hold one."""
    predicted: np.ndarray
    """int64 [N] in [0, C): the first class of the highest logit."""
    losses: np.ndarray
    """Log-loss float64 [N] in nats, at most 36.04; of a row that is not judged it says nothing."""
    is_finite: np.ndarray
    """bool [N]: the logits are numbers, all of them."""
    is_judged: np.ndarray
    """bool [N]: they are, and the label is a class of the model."""

    @classmethod
    def of(cls, labels: np.ndarray, logits: np.ndarray) -> Self:
        """Labels int [N], logits float [N, C]."""
        labels, classes = labels.astype(np.int64), logits.shape[1]
        is_finite = np.isfinite(logits).all(axis=1)
        is_known = (labels >= 0) & (labels < classes)
        shifted = _shifted(logits)
        powers = np.exp(shifted)
        sums = powers.sum(axis=0)
        with np.errstate(invalid="ignore"):
            of_label = shifted[np.where(is_known, labels, 0), np.arange(len(labels))]
            losses = np.minimum(np.log(sums) - of_label, _MAX_LOSS)
        return cls(
            labels=labels,
            logits=logits,
            scores=(powers / sums).T,
            predicted=logits.argmax(axis=1),
            losses=losses,
            is_finite=is_finite,
            is_judged=is_finite & is_known,
        )

    def judged(self) -> ScoredRows:
        """The rows that metrics are of."""
        kept = self.is_judged
        if kept.all():
            return self
        return ScoredRows(**{name: part[kept] for name, part in vars(self).items()})


def _shifted(logits: np.ndarray) -> np.ndarray:
    """float64 [C, N], each column less its maximum, so that no exponential overflows.

    The classes come first: operations over ten of them are slow, over thousands of rows they are not.
    """
    wide = np.ascontiguousarray(logits.T, np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, which is what such a row shall give
        result: np.ndarray = wide - wide.max(axis=0)
    return result
