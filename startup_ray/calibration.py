"""How well probabilities say how sure a model is: rows by confidence, and sums of proper scores.

    calibration = Calibration().update(labels, predicted, scores, losses).merge(other)  # in any order: the same bytes
    calibration.ece(), calibration.brier(), calibration.log_loss()

Sums are kept in fixed point: rounding is below 5e-13 a row, and whole numbers add alike in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

BINS = 15
"""Of equal width over confidence in [0, 1], the last closed on both sides (Guo et al. 2017, arXiv:1706.04599)."""
_SCALE = 1 << 40


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Sums over rows; those of reals in units of 2**-40, as Python integers, since int64 is too short for many rows."""

    rows: tuple[int, ...] = (0,) * BINS
    """By the probability of the predicted class."""
    hits: tuple[int, ...] = (0,) * BINS
    confidence: tuple[int, ...] = (0,) * BINS
    loss: int = 0
    """Log-loss in nats."""
    squares: int = 0
    """Squared distance of the probabilities from the truth, over all classes."""

    def update(self, labels: np.ndarray, predicted: np.ndarray, scores: np.ndarray, losses: np.ndarray) -> Self:
        """Add rows.

        Args:
            labels: int [N] in [0, C).
            predicted: int [N] in [0, C).
            scores: probabilities float64 [N, C].
            losses: log-loss float64 [N] in nats.
        """
        places = np.arange(len(labels))
        sure = scores[places, predicted]
        bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
        distance = np.einsum("ij,ij->i", scores, scores) - 2 * scores[places, labels] + 1
        return self.merge(
            Calibration(
                rows=_sums(bins, np.ones(len(bins), np.int64)),
                hits=_sums(bins, (labels == predicted).astype(np.int64)),
                confidence=_sums(bins, _fixed(sure)),
                loss=_sum(_fixed(losses)),
                squares=_sum(_fixed(distance)),
            )
        )

    def merge(self, other: Calibration) -> Self:
        """Sums of the rows of both."""
        return type(self)(
            rows=_both(self.rows, other.rows),
            hits=_both(self.hits, other.hits),
            confidence=_both(self.confidence, other.confidence),
            loss=self.loss + other.loss,
            squares=self.squares + other.squares,
        )

    @property
    def total(self) -> int:
        return sum(self.rows)

    def log_loss(self) -> float:
        """Mean over the rows in nats, as scikit-learn's; ZeroDivisionError without any."""
        return self.loss / _SCALE / self.total

    def brier(self, classes: int) -> float:
        """Mean squared distance, in [0, 2]; of two classes half of it, in [0, 1], as scikit-learn's (Brier 1950)."""
        return self.squares / _SCALE / self.total / (2 if classes == 2 else 1)

    def ece(self) -> float:
        """Expected calibration error: mean distance of a bin's accuracy from its confidence, in [0, 1]."""
        distance = sum(abs(hits * _SCALE - sure) for hits, sure in zip(self.hits, self.confidence, strict=True))
        return distance / _SCALE / self.total

    def table(self) -> list[dict[str, float]]:
        """`rows`, `confidence` and `accuracy` of each bin that has rows, by confidence."""
        return [
            {"rows": rows, "confidence": sure / _SCALE / rows, "accuracy": hits / rows}
            for rows, hits, sure in zip(self.rows, self.hits, self.confidence, strict=True)
            if rows
        ]


def _fixed(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.rint(values * _SCALE).astype(np.int64)
    return result


def _sums(bins: np.ndarray, values: np.ndarray) -> tuple[int, ...]:
    """Sums of int64 values by bin: of high and low halves, which an int64 holds for as many rows as memory does."""
    halves = np.zeros((2, BINS), np.int64)
    np.add.at(halves[0], bins, values >> 32)
    np.add.at(halves[1], bins, values & 0xFFFFFFFF)
    return tuple((high << 32) + low for high, low in zip(*halves.tolist(), strict=True))


def _sum(values: np.ndarray) -> int:
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def _both(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
