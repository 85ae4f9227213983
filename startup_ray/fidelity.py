"""How close generated images are to real ones, from features float [n, d] of a fixed extractor.

    real = Moments.of(features).merge(other)        # of any part, in any order: the same up to rounding
    frechet_distance(real, Moments.of(generated))   # FID: 12.3
    kernel_distance(features, generated)            # KID: 0.004
    modes(predicted, num_classes=10).missing        # (7,): no image was taken for a 7

Features have to be finite. FID and KID of different extractors, or FID of different numbers of rows, do not compare:
FID is biased by about 1 / n, KID is not (Binkowski et al. 2018, arXiv:1801.01401).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from startup_ray.neighbourhoods import blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Sufficient statistics of a Gaussian: of rows seen anywhere, in d * d numbers however many rows there are."""

    n: int
    """Rows."""
    mean: np.ndarray
    """float64 [d]"""
    spread: np.ndarray
    """float64 [d, d]: sum over the rows of the outer product of a row less the mean."""

    @classmethod
    def empty(cls, d: int) -> Self:
        """The zero of `merge`."""
        return cls(n=0, mean=np.zeros(d), spread=np.zeros((d, d)))

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Of rows float [n, d]."""
        n, d = features.shape
        if not n:
            return cls.empty(d)
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features - mean
        return cls(n=n, mean=mean, spread=centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """Of the rows of both; associative up to rounding, commutative to the bit.

        Sums of squares would cancel where the mean is large against the spread; spreads about their own means do not
        (Chan, Golub and LeVeque 1979, Stanford STAN-CS-79-773; 1983, doi:10.1080/00031305.1983.10483115).
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of {len(self.mean)} and of {len(other.mean)} features do not merge")
        if not self.n or not other.n:
            return self if self.n else other
        n, apart = self.n + other.n, other.mean - self.mean
        return Moments(
            n=n,
            mean=(self.n * self.mean + other.n * other.mean) / n,
            spread=self.spread + other.spread + np.outer(apart, apart) * (self.n * other.n / n),
        )

    def covariance(self) -> np.ndarray:
        """float64 [d, d], divided by n - 1 as numpy's; zeros of fewer than two rows."""
        return self.spread / max(self.n - 1, 1)

    def to_array(self) -> np.ndarray:
        """float64 [1 + d + d * d], for transports that know only arrays."""
        return np.concatenate([[float(self.n)], self.mean, self.spread.ravel()])

    @classmethod
    def from_array(cls, array: np.ndarray) -> Self:
        """The inverse of `to_array`, to the bit."""
        d = (math.isqrt(max(0, 4 * array.size - 3)) - 1) // 2
        if array.shape != (1 + d + d * d,):
            raise ValueError(f"an array of shape {array.shape} holds no moments: expected [1 + d + d * d]")
        return cls(n=int(array[0]), mean=array[1 : 1 + d], spread=array[1 + d :].reshape(d, d))


def frechet_distance(one: Moments, other: Moments) -> float:
    """FID, at least 0: squared 2-Wasserstein distance of two Gaussians, in squared units of the features.

    It is |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)) (Heusel et al. 2017, arXiv:1706.08500; Dowson and Landau
    1982, doi:10.1016/0047-259X(82)90077-X). The last trace is the sum of the singular values of S1^(1/2) S2^(1/2).
    Those are real, and exact up to rounding; the roots of the eigenvalues of S1 S2 are off by the root of rounding
    wherever there are fewer rows than features.

    Raises:
        ValueError: a side without rows, or different numbers of features.
    """
    if one.mean.shape != other.mean.shape or not one.n or not other.n:
        raise ValueError(f"{_size(one)} and {_size(other)}: expected rows on both sides, of equally many features")
    apart, first, second = one.mean - other.mean, one.covariance(), other.covariance()
    shared = np.linalg.svd(_root(first) @ _root(second).T, compute_uv=False).sum()
    return max(0.0, float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared))


def _size(moments: Moments) -> str:
    return f"{moments.n} rows of {len(moments.mean)} features"


def _root(covariance: np.ndarray) -> np.ndarray:
    """R float64 [d, d] with R.T @ R = S: the root of S but for a rotation, which singular values do not see."""
    values, vectors = np.linalg.eigh(covariance)
    # What rounding leaves of a zero would have a root of 1e-8; the limit is that of numpy's matrix_rank.
    least = len(values) * np.finfo(np.float64).eps * values.max(initial=0)
    result: np.ndarray = np.sqrt(np.where(values > least, values, 0))[:, None] * vectors.T
    return result


def kernel_distance(one: np.ndarray, other: np.ndarray, *, block: int = 1024) -> float:
    """KID: unbiased estimate of the squared maximum mean discrepancy, around 0 (or below) for equal distributions.

    The kernel is (x.y / d + 1)^3, the mean is over all pairs and not over subsets (Binkowski et al. 2018,
    arXiv:1801.01401; Gretton et al. 2012, JMLR 13, eq. 3).

    Args:
        one: float [n, d].
        other: float [m, d].
        block: rows at a time: memory is for block * block float64, whatever n and m are.

    Raises:
        ValueError: fewer than two rows on a side, which have no pair of different ones.
    """
    n, m = len(one), len(other)
    if min(n, m) < 2:
        raise ValueError(f"{n} and {m} rows: the kernel distance needs at least 2 on each side")
    within = _within(one, block) / (n * (n - 1)) + _within(other, block) / (m * (m - 1))
    across = math.fsum(
        float(_kernel(rows, columns).sum()) for _, rows in blocks(one, block) for _, columns in blocks(other, block)
    )
    return within - 2 * across / (n * m)


def _within(rows: np.ndarray, block: int) -> float:
    """Sum of the kernel over all ordered pairs of different rows."""
    sums = []
    for start, some in blocks(rows, block):
        kernel = _kernel(some, some)
        np.fill_diagonal(kernel, 0)
        sums.append(float(kernel.sum()))
        sums += [2 * float(_kernel(some, later).sum()) for _, later in blocks(rows[start + block :], block)]
    return math.fsum(sums)


def _kernel(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 [n, m]: the kernel less 1. The distance cancels constants; left out, they take no digits."""
    inner = rows @ columns.T / rows.shape[1]
    result: np.ndarray = ((inner + 3) * inner + 3) * inner
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Modes:
    """Which classes generated images are taken for by a classifier of real ones."""

    counts: np.ndarray
    """int64 [C], rows."""

    def merge(self, other: Modes) -> Modes:
        """Of the rows of both; the zero is that of no rows."""
        if self.counts.shape != other.counts.shape:
            raise ValueError(f"modes of {len(self.counts)} and of {len(other.counts)} classes do not merge")
        return Modes(counts=self.counts + other.counts)

    @property
    def shares(self) -> np.ndarray:
        """float64 [C] in [0, 1]; zeros without rows."""
        return self.counts / max(1, int(self.counts.sum()))

    @property
    def entropy(self) -> float:
        """Shannon's (1948) of the shares over log C, in [0, 1]: 1 is all classes alike, or only one that there is."""
        if len(self.counts) == 1:
            return 1.0
        shares = self.shares[self.counts > 0]
        return min(1.0, float((shares * -np.log(shares)).sum()) / math.log(len(self.counts)))

    @property
    def rarest(self) -> float:
        """Least share, in [0, 1 / C]."""
        return float(self.shares.min())

    @property
    def missing(self) -> tuple[int, ...]:
        """Classes without a row, ascending."""
        return tuple(np.flatnonzero(self.counts == 0).tolist())


def modes(predicted: np.ndarray, num_classes: int) -> Modes:
    """Of predictions int [n]; ValueError if one is not in [0, num_classes)."""
    if len(predicted) and not 0 <= predicted.min() <= predicted.max() < num_classes:
        raise ValueError(f"classes from {predicted.min()} to {predicted.max()}, expected 0 to {num_classes - 1}")
    return Modes(counts=np.bincount(predicted, minlength=num_classes).astype(np.int64))
