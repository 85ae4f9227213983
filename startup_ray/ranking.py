"""How well scores rank: ROC-AUC and average precision of one class from counts, each with an interval that holds.

    ranks = Ranks.of_classes(scores, labels)[7].merge(other)    # in any order: the same bytes
    ranks.roc_auc()                                             # Value(value=0.971, low=0.9708, high=0.9712)

Scores are counted in bins, one for each different score as long as these are few. Of more, pairs of neighbouring bins
become one, in an order that is fixed beforehand, until there are few enough. How far that goes depends on the set of
scores and on nothing else, so merging is associative. The order of rows within a bin is known if all have the same
score; else all orders that it could be give the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

MOST = 1_536
"""Bins of a class."""
_STEPS = 8
"""In which a level becomes the next; each puts an eighth of its pairs together. A power of two."""
_LAST = _STEPS * 29
"""Level of at most five bins."""
_LEAST = (1023 - 150) << 23
"""Below the bits of every float32 above 0, exponent and 23 bits of fraction, had it the exponent of a float64."""
_HALF = (1022 << 23) - _LEAST
_BIAS = (1023 - 127 << 23) - _LEAST
_ZERO, _ONE = -1, (1 << 31) - 1
"""Keys of scores 0 and 1, which saturated models give to many rows. All their bits are set, so they are bins of their
own at every level: keys of scores between reach from 1 << 23 to 172 << 23."""
MIXED = -2
"""In `scores`: more than one."""


COLUMNS = 4


class Value(NamedTuple):
    """A value, and the ends between which the one of the single scores lies for certain."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Scores of one class: how many rows, and how many positive ones, lie in each bin."""

    level: int
    """Steps of coarsening."""
    keys: np.ndarray
    """int64 [B], ascending with the scores."""
    scores: np.ndarray
    """int64 [B]: key of the one score of a bin, or MIXED."""
    rows: np.ndarray
    """int64 [B], at least 1."""
    positives: np.ndarray
    """int64 [B]"""

    @classmethod
    def empty(cls) -> Self:
        """The zero of `merge`."""
        nothing = np.zeros(0, np.int64)
        return cls(level=0, keys=nothing, scores=nothing, rows=nothing, positives=nothing)

    @classmethod
    def of_classes(
        cls, scores: np.ndarray, labels: np.ndarray, *, most: int = MOST, levels: Sequence[int] | None = None
    ) -> tuple[Self, ...]:
        """Of each class against the others.

        Args:
            scores: float32 [N, C] in [0, 1], none of them NaN.
            labels: int [N].
            most: bins of a class.
            levels: of the ranks that these will be merged with, if they will: finer bins would be for nothing.
        """
        keys = _keys(np.ascontiguousarray(scores.T))
        ordered = np.sort(keys, axis=1)
        least = levels or [0] * scores.shape[1]
        return tuple(cls._counted(ordered[i], keys[i, labels == i], most, level) for i, level in enumerate(least))

    @classmethod
    def _counted(cls, ordered: np.ndarray, positive: np.ndarray, most: int, least: int) -> Self:
        """Keys of all rows, in order, and those of the positive ones among them."""
        folded = _folded(ordered, 0, least)
        level = _level_for(folded, least, most)
        folded = _folded(folded, least, level)
        starts = _starts(folded)
        rows = np.diff(starts, append=len(ordered))
        keys, first, last = (
            part.astype(np.int64) for part in (folded[starts], ordered[starts], ordered[starts + rows - 1])
        )
        places = np.searchsorted(keys, _folded(positive, 0, level))
        return cls(
            level=level,
            keys=keys,
            scores=np.where(first == last, first, MIXED),
            rows=rows,
            positives=np.bincount(places, minlength=len(keys)).astype(np.int64),
        )

    def merge(self, other: Ranks, *, most: int = MOST) -> Ranks:
        """Both together; `most` has to be the same in all calls."""
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        level = max(self.level, other.level)
        both: tuple[Ranks, Ranks] = (self, other)
        folded = np.concatenate([_folded(ranks.keys, ranks.level, level) for ranks in both])
        order = np.argsort(folded, kind="stable")  # two runs in order: that is merging
        to = _level_for(folded[order], level, most)
        settled = _folded(folded[order], level, to)
        starts = _starts(settled)
        scores, rows, positives = (
            np.concatenate(pair)[order] for pair in zip(*((r.scores, r.rows, r.positives) for r in both), strict=True)
        )
        low, high = np.minimum.reduceat(scores, starts), np.maximum.reduceat(scores, starts)
        return Ranks(
            level=to,
            keys=settled[starts],
            scores=np.where(low == high, low, MIXED),
            rows=np.add.reduceat(rows, starts),
            positives=np.add.reduceat(positives, starts),
        )

    def columns(self) -> list[np.ndarray]:
        """`COLUMNS` arrays int64 [B] of small numbers, which compress well."""
        rest = np.where(self.scores == MIXED, -1, self.scores - (self.keys << self.level // _STEPS))
        return [np.diff(self.keys, prepend=0), rest, self.rows, self.positives]

    @classmethod
    def from_columns(cls, level: int, columns: Sequence[np.ndarray]) -> Self:
        """The inverse of `columns`."""
        steps, rest, rows, positives = columns
        keys = np.cumsum(steps)
        scores = np.where(rest < 0, MIXED, rest + (keys << level // _STEPS))
        return cls(level=level, keys=keys, scores=scores, rows=rows, positives=positives)

    def roc_auc(self) -> Value | None:
        """Area under the curve of true over false positive rates; None without a positive or a negative row.

        It is the share of pairs of a positive and a negative row in which the positive one has the higher score, ties
        counted half (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747).
        """
        negatives = self.rows - self.positives
        pairs = int(self.positives.sum()) * int(negatives.sum())
        if not pairs:
            return None
        below = np.cumsum(negatives) - negatives
        within, is_mixed = self.positives * negatives, self.scores == MIXED
        # In half pairs; Python integers do not overflow.
        sure = sum((2 * self.positives * below).tolist()) + sum(within[~is_mixed].tolist())
        unsure = sum(within[is_mixed].tolist())
        return Value(*((sure + part) / (2 * pairs) for part in (unsure, 0, 2 * unsure)))

    def average_precision(self) -> Value | None:
        """Sum over scores of the gain in recall times the precision there, as scikit-learn's; None without a positive.

        Precision at the i-th positive row of a bin is (T + i) / (T + i + F), with T positives before the bin, and F
        negatives that are F0 before it and up to n within. F = F0 and all positives tied is the most it can be; F =
        F0 + n, one positive after the other, the least. That sum is concave in i: at least the mean of its ends.
        """
        total = int(self.positives.sum())
        if not total:
            return None
        found = self.positives[::-1].astype(np.float64)
        false = (self.rows - self.positives)[::-1].astype(np.float64)
        before, false_before = np.cumsum(found) - found, np.cumsum(false) - false
        has = found > 0
        is_mixed = (self.scores == MIXED)[::-1][has]
        found, before, false, false_before = found[has], before[has], (false_before + false)[has], false_before[has]
        last = (before + found) / (before + found + false)
        first = (before + 1) / (before + 1 + false)
        tied = found * last
        low = np.where(is_mixed, found * (first + last) / 2, tied)
        high = np.where(is_mixed, found * (before + found) / (before + found + false_before), tied)
        return Value(*(float(part.sum()) / total for part in (tied, low, high)))


def _keys(scores: np.ndarray) -> np.ndarray:
    """int32 that ascend with float32 in [0, 1], one for each; even in the logarithms of s and of 1 - s."""
    is_low = scores <= 0.5
    near = np.where(is_low, scores, 1 - scores)  # exact: Sterbenz 1974
    keys = near.view(np.int32) + _BIAS
    tiny = (near > 0) & (near < np.finfo(np.float32).tiny)  # of these only a float64's exponent is a logarithm
    if tiny.any():
        keys[tiny] = (near[tiny].astype(np.float64).view(np.int64) >> 29) - _LEAST
    keys = np.where(is_low, keys, _HALF - keys + _HALF)  # twice _HALF is no int32
    keys[scores == 0], keys[scores == 1] = _ZERO, _ONE
    return keys


def _level_for(ordered: np.ndarray, level: int, most: int) -> int:
    """The first level, from `level` on, at which sorted keys need few enough bins."""

    def fits(to: int) -> bool:
        return int(np.count_nonzero(_is_new(_folded(ordered, level, to)))) <= most

    # Merging rarely goes far from the level that there is: steps of 1, 2, 4 and so on find the range.
    below, above, step = level - 1, level, 1
    while not fits(above):
        below, above, step = above, min(above + step, _LAST), 2 * step
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if fits(middle) else (middle, above)
    return above


def _folded(keys: np.ndarray, level: int, to: int) -> np.ndarray:
    """Keys of a level as those of a later one; order is kept."""
    if level == to:
        return keys
    folded = keys >> (to // _STEPS - level // _STEPS)
    step = to % _STEPS
    return folded ^ (folded & ((folded >> 1 & _STEPS - 1) < step)) if step else folded


def _starts(ordered: np.ndarray) -> np.ndarray:
    """int64 [B]: where each of the different values begins."""
    return np.flatnonzero(_is_new(ordered))


def _is_new(ordered: np.ndarray) -> np.ndarray:
    """bool [N]: differs from the one before."""
    found = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=found[1:])
    return found
