"""How sure a metric is: intervals from the confusion matrix, and the difference of two models on the same rows.

    intervals(stats.confusion, seed=7)              # {'accuracy': (0.96, 0.99), ...}
    compare(labels, of_one, of_other, num_classes=10, seed=7)["differences"]["accuracy"]

Values in, values out; the same seed gives the same intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

from startup_ray.metrics import AVERAGED, margin_scores

DRAWS = 2_000
LEVEL = 0.95


def intervals(
    matrix: np.ndarray, seed: int, *, average: str = "macro", draws: int = DRAWS, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Interval of each metric that a confusion matrix int64 [C, C] gives; none if it is empty.

    Accuracy, and what equals it, is a proportion: Wilson's score interval (1927), which holds for few rows and few
    mistakes too. The others are bootstrap percentiles: drawing n rows with replacement and counting them is one
    Multinomial(n, matrix / n) draw (Efron 1979), so no row is needed again. A metric whose draws are all equal, as
    without any mistake, has no interval: the bootstrap cannot tell how sure that is.
    """
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted]
    if not len(counts):
        return {}
    parts = [_scores(drawn, true, predicted, len(matrix)) for drawn in _drawn(counts, len(matrix), seed, draws)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ends = {name: _middle(values, level) for name, values in drawn.items() if np.ptp(values) > 0}
    proportion = wilson(int(np.trace(matrix)), int(matrix.sum()), level)
    ends |= dict.fromkeys(["accuracy", *(f"{name}_micro" for name in AVERAGED)], proportion)
    return ends | {name: ends[f"{name}_{average}"] for name in AVERAGED if f"{name}_{average}" in ends}


def compare(
    labels: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    average: str = "macro",
    draws: int = DRAWS,
    level: float = LEVEL,
) -> dict[str, Any]:
    """How much better the other model is than the one, on the same rows.

    Args:
        labels: int [N] in [0, num_classes).
        one: predictions of one model, int [N] in [0, num_classes).
        other: those of the other.
        num_classes: C; all metrics are those of confusion matrices [C, C].
        seed: of the bootstrap.
        average: of precision, recall and f1.
        draws: of the bootstrap.
        level: of the intervals.

    Returns:
        `rows`; `only_one_right` and `only_other_right`, rows; `p_value`, McNemar's exact test of whether both are
        right equally often (McNemar 1947, doi:10.1007/BF02295996; two-sided binomial), in [0, 1]; `differences`, for
        each metric `{"value", "low", "high", "significant"}`: other less one, with the percentiles of drawing rows
        with replacement, of which each takes the predictions of both models along. Significant is what has both ends
        on one side of 0. None of it if there are no rows.
    """
    if not len(labels):
        return {"rows": 0}
    cells, counts = np.unique((labels * num_classes + one) * num_classes + other, return_counts=True)
    true, first, second = cells // num_classes**2, cells // num_classes % num_classes, cells % num_classes
    found: dict[str, list[np.ndarray]] = {}
    for drawn in _drawn(counts, num_classes, seed, draws):
        before, after = (_scores(drawn, true, predicted, num_classes) for predicted in (first, second))
        for name in before:
            found.setdefault(name, []).append(after[name] - before[name])
    scores = [_scores(counts[None], true, predicted, num_classes) for predicted in (first, second)]
    differences = {
        name: _difference(float(scores[1][name][0] - scores[0][name][0]), _middle(np.concatenate(parts), level))
        for name, parts in found.items()
    }
    only_one = int(counts[(first == true) & (second != true)].sum())
    only_other = int(counts[(second == true) & (first != true)].sum())
    return {
        "rows": len(labels),
        "only_one_right": only_one,
        "only_other_right": only_other,
        "p_value": mcnemar(only_one, only_other),
        "differences": differences | {name: differences[f"{name}_{average}"] for name in AVERAGED},
    }


def mcnemar(only_one: int, only_other: int) -> float:
    """Probability of a split of discordant rows at least as uneven, were both sides equally likely; 1 without any."""
    rows, least = only_one + only_other, min(only_one, only_other)
    logs = [math.lgamma(rows + 1) - math.lgamma(i + 1) - math.lgamma(rows - i + 1) for i in range(least + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - rows * math.log(2)) for log in logs))


def wilson(hits: int, rows: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a proportion, in [0, 1] (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = hits / rows, z * z / rows
    middle, half = share + weight / 2, z * math.sqrt(share * (1 - share) / rows + weight / rows / 4)
    return max(0.0, (middle - half) / (1 + weight)), min(1.0, (middle + half) / (1 + weight))


def _drawn(counts: np.ndarray, classes: int, seed: int, draws: int) -> Iterator[np.ndarray]:
    """Draws int64 [B, cells] in turn, so that large matrices fit the memory."""
    rng = np.random.default_rng(seed)
    chunk = max(1, (1 << 22) // max(len(counts), classes))
    for done in range(0, draws, chunk):
        yield rng.multinomial(counts.sum(), counts / counts.sum(), min(chunk, draws - done))


def _scores(drawn: np.ndarray, true: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Metrics [B] of counts int64 [B, cells], whose cells lie at (true, predicted)."""
    margins = np.zeros((3, classes, len(drawn)), np.int64)
    on_diagonal = true == predicted
    np.add.at(margins[0], true[on_diagonal], drawn.T[on_diagonal])
    np.add.at(margins[1], true, drawn.T)
    np.add.at(margins[2], predicted, drawn.T)
    return margin_scores(margins[0].T, true=margins[1].T, predicted=margins[2].T)


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _difference(value: float, ends: tuple[float, float]) -> dict[str, Any]:
    low, high = ends
    return {"value": value, "low": low, "high": high, "significant": low > 0 or high < 0}
