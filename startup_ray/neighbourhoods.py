"""What lies near what: how much of the real images generated ones cover, and whether they are copies of them.

    neighbourhoods(generated, real, k=5)                # {'precision': 0.91, 'recall': 0.64, ...}
    distances, places = nearest(generated, training)
    memorisation(generated, training, held_out)         # {'ratio': 0.98, ...}: below 1 is too close

Distances are Euclidean, of finite rows float [n, d]. All pairs are looked at, some rows at a time: memory is for
block * block float64, whatever the number of rows, and no result depends on the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def blocks(rows: np.ndarray, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """Up to `block` rows at a time as float64, and the place of their first."""
    for start in range(0, len(rows), block):
        yield start, rows[start : start + block].astype(np.float64, copy=False)


def neighbourhoods(fake: np.ndarray, real: np.ndarray, *, k: int = 5, block: int = 1024) -> dict[str, float]:
    """How well balls around rows, up to their k-th nearest neighbour in the same set, hold the rows of the other set.

    A row is in a ball if it is strictly nearer to the centre, as in the reference code of Naeem et al.; the k-th
    neighbour itself is not, nor is its copy. So a copy of a whole set has a density of 1, as fresh draws have.

    Args:
        fake: generated, float [n, d].
        real: float [m, d].
        k: neighbours, without the row itself.
        block: rows at a time.

    Returns:
        `precision`, share of fake rows in any ball of a real one, and `recall`, share of real rows in any ball of a
        fake one, in [0, 1] (Kynkäänniemi et al. 2019, arXiv:1904.06991). `density`, mean number of real balls that a
        fake row is in, over k, at least 0, and `coverage`, share of real balls with a fake row, in [0, 1], which an
        outlier among the real ones, or among the fake ones, does not inflate (Naeem et al. 2020, arXiv:2002.09797).

    Raises:
        ValueError: a set of k rows or fewer.
    """
    if not 1 <= k < min(len(fake), len(real)):
        raise ValueError(f"{len(fake)} fake and {len(real)} real rows: k = {k} neighbours need more of each")
    of_fake, of_real = _radii(fake, k, block), _radii(real, k, block)
    balls = np.zeros(len(fake), np.int64)
    is_recalled, is_covered = np.zeros((2, len(real)), bool)
    for i, rows in blocks(fake, block):
        for j, columns in blocks(real, block):
            squared, doubt = _squared(rows, columns)
            reach = squared + doubt
            is_within = reach < of_real[j : j + block]
            balls[i : i + block] += is_within.sum(axis=1)
            is_covered[j : j + block] |= is_within.any(axis=0)
            is_recalled[j : j + block] |= (reach < of_fake[i : i + block, None]).any(axis=0)
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(is_recalled.mean()),
        "density": float(balls.mean()) / k,
        "coverage": float(is_covered.mean()),
    }


def nearest(queries: np.ndarray, references: np.ndarray, *, block: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Nearest reference of each query.

    Args:
        queries: float [n, p].
        references: float [m, p].
        block: rows at a time.

    Returns:
        Distances float64 [n], exactly 0 of equal rows, and places int64 [n] in [0, m), of equals the first.

    Raises:
        ValueError: no references.
    """
    if not len(references):
        raise ValueError("no rows to find the nearest of")
    least, places = np.full(len(queries), np.inf), np.zeros(len(queries), np.int64)
    for i, rows in blocks(queries, block):
        for j, columns in blocks(references, block):
            here, to, squared = _closest(rows, columns, block)
            is_closer = squared < least[i + here]
            least[i + here[is_closer]], places[i + here[is_closer]] = squared[is_closer], j + to[is_closer]
    return np.sqrt(least), places


def memorisation(fake: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> dict[str, float | None]:
    """How much nearer generated rows float [n, p] are to the training set than real ones that it does not hold.

    Both are measured against the same training rows, so neither their number nor the scale of rows matters; held-out
    rows have to be of the distribution of the training rows. Copies are found in a space in which near means alike.

    Returns:
        `ratio`, of the median distances of fake and of held-out rows to their nearest training row, and `ratio_p5`, of
        the 5th percentiles: around 1 for fresh draws, below if closer to training rows than real ones are; None where
        the distance of the held-out ones is 0. `copies`, share of fake rows nearer to a training row than 99% of the
        held-out ones are, in [0, 1]: around 0.01 for fresh draws.

    Raises:
        ValueError: a set without rows.
    """
    if not len(fake) or not len(held_out):
        raise ValueError(f"{len(fake)} fake and {len(held_out)} held-out rows: both are needed")
    return closeness(nearest(fake, train)[0], nearest(held_out, train)[0])


def closeness(found: np.ndarray, usual: np.ndarray) -> dict[str, float | None]:
    """`memorisation` from the distances to the nearest training row, float64 [n] and [m]: of fake and of real rows."""
    # Not interpolated: 99% of the held-out rows really are at this distance or farther.
    limit = np.quantile(usual, 0.01, method="lower")
    return {
        "ratio": _ratio(np.median(found), np.median(usual)),
        "ratio_p5": _ratio(np.quantile(found, 0.05), np.quantile(usual, 0.05)),
        "copies": float((found < limit).mean()),
    }


def _ratio(one: np.floating, other: np.floating) -> float | None:
    return float(one / other) if other else None


def _radii(rows: np.ndarray, k: int, block: int) -> np.ndarray:
    """float64 [n]: squared distance of each row to its k-th nearest other row."""
    radii = np.zeros(len(rows))
    for i, some in blocks(rows, block):
        least = np.full((len(some), k), np.inf)
        for j, others in blocks(rows, block):
            squared, _ = _squared(some, others)
            if i == j:
                np.fill_diagonal(squared, np.inf)
            least = np.partition(np.hstack([least, squared]), k - 1, axis=1)[:, :k]
        radii[i : i + block] = least[:, k - 1]
    return radii


def _closest(rows: np.ndarray, columns: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows int64 [c], the column nearest to each, the first of equals, and their squared distance float64 [c].

    Only pairs that rounding may have kept from being the nearest are computed again, without cancellation.
    """
    squared, doubt = _squared(rows, columns)
    here, to = np.nonzero(squared - doubt <= (squared + doubt).min(axis=1, keepdims=True))
    exact = np.zeros(len(here))
    for i in range(0, len(here), block):
        apart = rows[here[i : i + block]] - columns[to[i : i + block]]
        exact[i : i + block] = (apart * apart).sum(axis=1)
    order = np.lexsort((to, exact, here))
    first = order[np.unique(here[order], return_index=True)[1]]
    return here[first], to[first], exact[first]


def _squared(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances float64 [n, m] as |a|^2 + |b|^2 - 2 a.b, and twice what rounding may have added or taken.

    An inner product of p terms is off by at most p eps / 2 of |a| |b| (Higham 2002, Accuracy and Stability, 3.1).
    """
    sizes = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", columns, columns)
    return sizes - 2 * (rows @ columns.T), sizes * (2 * rows.shape[1] * np.finfo(np.float64).eps)
