"""How good a classifier is: sums that add up in any order, ratios once at the end.

    stats = Stats.empty(num_classes=10)
    stats = stats.update(labels, logits).merge(other)       # of any part, in any order: the same bytes
    stats.scores(average="macro")                           # {'accuracy': 0.98, 'f1': ..., ...}
    intervals(stats.confusion, seed=7)                      # {'accuracy': (0.96, 0.99), ...}

Law: merge is associative and commutative, with `empty` as its zero; every row is in exactly one account of `rows`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self

import numpy as np

AVERAGES = ("macro", "micro", "weighted")
AVERAGED = ("precision", "recall", "f1")
NAMES = (
    *("accuracy", "balanced_accuracy", *AVERAGED),
    *(f"{name}_{average}" for name in AVERAGED for average in AVERAGES),
    *("kappa", "mcc", "log_loss"),
)
"""Every metric of an evaluation; precision, recall and f1 go by the job's average."""

_SCALE = 1 << 40  # log-loss in fixed point: rounding below 5e-13 a row, and integers add alike in any order
_MAX_LOSS = -math.log(np.finfo(np.float64).eps)  # where scikit-learn's log_loss clips probabilities


@dataclass(frozen=True, kw_only=True, eq=False)
class Stats:
    """Sufficient statistics of scored rows."""

    confusion: np.ndarray
    """int64 [C, C], rows = true class, columns = predicted class."""
    loss: int = 0
    """Sum of log-loss over the scored rows, in units of 2**-40 nats."""
    unlabeled: int = 0
    unknown_class: int = 0
    """Rows whose label is no class of the model."""
    bad_scores: int = 0
    """Labelled rows whose logits are not all finite."""
    corrupt: int = 0
    """Rows whose image could not be read."""

    @classmethod
    def empty(cls, num_classes: int) -> Self:
        """The zero of `merge`."""
        return cls(confusion=np.zeros((num_classes, num_classes), np.int64))

    def update(self, labels: np.ndarray, logits: np.ndarray) -> Self:
        """Add rows: labels int [N] (-1 = none, >= C = class unknown to the model), logits float [N, C]."""
        classes = len(self.confusion)
        if logits.shape != (len(labels), classes):
            raise ValueError(f"logits of shape {logits.shape}, expected {(len(labels), classes)}")
        unlabeled, unknown = labels < 0, labels >= classes
        bad = ~unlabeled & ~unknown & ~np.isfinite(logits).all(axis=1)
        kept = ~(unlabeled | unknown | bad)
        cells = labels[kept].astype(np.int64) * classes + logits[kept].argmax(axis=1)
        losses = np.rint(row_losses(labels[kept], logits[kept]) * _SCALE).astype(np.int64)
        return replace(
            self,
            confusion=self.confusion + np.bincount(cells, minlength=classes**2).reshape(classes, classes),
            loss=self.loss + sum(losses.tolist()),  # Python integers, since an int64 sum would overflow at 232,000 rows
            unlabeled=self.unlabeled + int(unlabeled.sum()),
            unknown_class=self.unknown_class + int(unknown.sum()),
            bad_scores=self.bad_scores + int(bad.sum()),
        )

    def merge(self, other: Stats) -> Self:
        """Statistics of the rows of both."""
        if self.confusion.shape != other.confusion.shape:
            raise ValueError(f"statistics of {len(self.confusion)} and of {len(other.confusion)} classes do not merge")
        return replace(
            self,
            confusion=self.confusion + other.confusion,
            loss=self.loss + other.loss,
            unlabeled=self.unlabeled + other.unlabeled,
            unknown_class=self.unknown_class + other.unknown_class,
            bad_scores=self.bad_scores + other.bad_scores,
            corrupt=self.corrupt + other.corrupt,
        )

    @property
    def scored(self) -> int:
        """Rows that the metrics are of."""
        return int(self.confusion.sum())

    def rows(self) -> dict[str, int]:
        """Accounts of the rows seen: total = scored + unlabeled + unknown_class + bad_scores + corrupt."""
        names = ("unlabeled", "unknown_class", "bad_scores", "corrupt")
        accounts = {"scored": self.scored} | {name: getattr(self, name) for name in names}
        return {"total": sum(accounts.values())} | accounts

    def scores(self, average: str = "macro") -> dict[str, float | None]:
        """Value of each metric of `NAMES`; all None when no row was scored. log_loss is in nats per row."""
        if not self.scored:
            return dict.fromkeys(NAMES)
        found = {name: float(value) for name, value in confusion_scores(self.confusion).items()}
        plain = {name: found[f"{name}_{average}"] for name in AVERAGED}
        log_loss = {"log_loss": self.loss / _SCALE / self.scored}
        return {name: (found | plain | log_loss)[name] for name in NAMES}

    def per_class(self) -> dict[str, np.ndarray]:
        """precision, recall, f1 float64 [C], 0 where undefined, and support int64 [C]."""
        hits, true, predicted = np.diagonal(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        ratios = {"precision": _ratio(hits, predicted), "recall": _ratio(hits, true)}
        return ratios | {"f1": _ratio(2 * hits, true + predicted), "support": true}

    def pack(self) -> bytes:
        """The statistics as canonical JSON: equal statistics give equal bytes. Zero cells are left out."""
        cells = np.flatnonzero(self.confusion)
        counts = self.confusion.ravel()[cells]
        fields = self.rows() | {"loss": self.loss, "classes": len(self.confusion)}
        return json.dumps(fields | {"cells": cells.tolist(), "counts": counts.tolist()}, sort_keys=True).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The inverse of `pack`."""
        fields = json.loads(data)
        confusion = np.zeros(fields["classes"] ** 2, np.int64)
        confusion[fields["cells"]] = fields["counts"]
        names = ("loss", "unlabeled", "unknown_class", "bad_scores", "corrupt")
        shape = (fields["classes"], fields["classes"])
        return cls(confusion=confusion.reshape(shape), **{name: fields[name] for name in names})


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 [N, C] of logits float [N, C]; NaN where a row holds one."""
    powers = np.exp(_shifted(logits))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def row_losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Log-loss float64 [N] in nats, at most 36.04; labels int [N] in [0, C), logits float [N, C] finite."""
    shifted = _shifted(logits)
    of_label = shifted[np.arange(len(labels)), labels]
    losses: np.ndarray = np.minimum(np.log(np.exp(shifted).sum(axis=1)) - of_label, _MAX_LOSS)
    return losses


def confusion_scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics float64 [...] of confusion matrices int64 [..., C, C] (rows = true, columns = predicted), in [-1, 1].

    The conventions are scikit-learn's: macro averages go over the classes that are true or predicted anywhere,
    balanced accuracy over those that are true, and what is undefined is 0.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _margin_scores(hits, true=matrix.sum(axis=-1), predicted=matrix.sum(axis=-2))


def intervals(
    matrix: np.ndarray, seed: int, *, average: str = "macro", draws: int = 2_000, level: float = 0.95
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
    rng = np.random.default_rng(seed)
    chunk = max(1, (1 << 22) // max(len(counts), len(matrix)))  # drawn in turn, so that large matrices fit the memory
    parts = [
        _resampled(rng.multinomial(counts.sum(), counts / counts.sum(), min(chunk, draws - i)), true, predicted, matrix)
        for i in range(0, draws, chunk)
    ]
    tail = (1 - level) / 2
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ends = {name: np.quantile(values, [tail, 1 - tail]) for name, values in drawn.items() if np.ptp(values) > 0}
    proportion = _wilson(int(np.trace(matrix)), int(matrix.sum()), level)
    ends |= dict.fromkeys(["accuracy", *(f"{name}_micro" for name in AVERAGED)], proportion)
    plain = {name: ends[f"{name}_{average}"] for name in AVERAGED if f"{name}_{average}" in ends}
    return {name: (float(low), float(high)) for name, (low, high) in (ends | plain).items()}


def _wilson(hits: int, rows: int, level: float) -> np.ndarray:
    """Score interval float64 [2] of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = hits / rows, z * z / rows
    middle, half = share + weight / 2, z * math.sqrt(share * (1 - share) / rows + weight / rows / 4)
    return np.clip(np.array([middle - half, middle + half]) / (1 + weight), 0.0, 1.0)


def _shifted(logits: np.ndarray) -> np.ndarray:
    """float64 [N, C], each row less its maximum, so that no exponential overflows."""
    wide = np.ascontiguousarray(logits, np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, which is what such a row shall give
        result: np.ndarray = wide - wide.max(axis=1, keepdims=True)
    return result


def _resampled(drawn: np.ndarray, true: np.ndarray, predicted: np.ndarray, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics float64 [B] of draws int64 [B, cells], whose cells lie at (true, predicted)."""
    margins = np.zeros((3, len(matrix), len(drawn)), np.int64)
    on_diagonal = true == predicted
    np.add.at(margins[0], true[on_diagonal], drawn.T[on_diagonal])
    np.add.at(margins[1], true, drawn.T)
    np.add.at(margins[2], predicted, drawn.T)
    return _margin_scores(margins[0].T, true=margins[1].T, predicted=margins[2].T)


def _margin_scores(hits: np.ndarray, *, true: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics float64 [...] from int64 [..., C]: the diagonal, the row sums and the column sums."""
    hits, true, predicted = (np.asarray(part, np.float64) for part in (hits, true, predicted))
    rows, seen = true.sum(axis=-1), (true + predicted > 0).sum(axis=-1)
    accuracy, recall = _ratio(hits.sum(axis=-1), rows), _ratio(hits, true)
    of_class = {"precision": _ratio(hits, predicted), "recall": recall, "f1": _ratio(2 * hits, true + predicted)}
    found = {"accuracy": accuracy, "balanced_accuracy": _ratio(recall.sum(axis=-1), (true > 0).sum(axis=-1))}
    for name, values in of_class.items():
        found[f"{name}_macro"] = _ratio(values.sum(axis=-1), seen)
        found[f"{name}_micro"] = accuracy  # each row has one true and one predicted class
        found[f"{name}_weighted"] = _ratio((values * true).sum(axis=-1), rows)
    # Kept as products of whole numbers, exact in float64 up to 94 million rows; (a - e) / (1 - e) cancels.
    chance, square = (true * predicted).sum(axis=-1), rows**2
    above_chance = hits.sum(axis=-1) * rows - chance
    found["kappa"] = _ratio(above_chance, square - chance)  # Cohen 1960
    spread = (square - (true**2).sum(axis=-1)) * (square - (predicted**2).sum(axis=-1))
    found["mcc"] = _ratio(above_chance, np.sqrt(spread))  # Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006
    return found


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    under = np.asarray(under, np.float64)
    result: np.ndarray = np.divide(over, under, out=np.zeros(under.shape), where=under != 0)
    return result
