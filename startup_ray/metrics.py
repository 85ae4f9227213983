"""How good a classifier is: sums that add up in any order, ratios once at the end.

    stats = Stats.empty(num_classes=10)
    stats = stats.update(ScoredRows.of(labels, logits)).merge(other)    # of any part, in any order: the same bytes
    stats.scores(average="macro")                                       # {'accuracy': 0.98, 'f1': ..., ...}
    stats.bounds()                                                      # {'roc_auc': (0.9711, 0.9712), ...}

Law: merge is associative and commutative, with `empty` as its zero; every row is in exactly one account of `rows`.
"""

from __future__ import annotations

import itertools
import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from startup_ray.calibration import Calibration
from startup_ray.ranking import COLUMNS, Ranks, Value
from startup_ray.scored import ScoredRows

AVERAGES = ("macro", "micro", "weighted")
AVERAGED = ("precision", "recall", "f1")
NAMES = (
    *("accuracy", "balanced_accuracy", *AVERAGED),
    *(f"{name}_{average}" for name in AVERAGED for average in AVERAGES),
    *("kappa", "mcc", "top_3_accuracy", "top_5_accuracy"),
    *("log_loss", "brier", "ece", "roc_auc", "average_precision"),
)
"""Every metric of an evaluation; precision, recall and f1 go by the job's average."""
TOP = (3, 5)
RANKED = ("roc_auc", "average_precision")
"""Of each class against the others, and their mean over the classes that have rows on both sides."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stats:
    """Sufficient statistics of scored rows."""

    confusion: np.ndarray
    """int64 [C, C], rows = true class, columns = predicted class."""
    top: tuple[int, ...] = (0,) * len(TOP)
    """Rows whose class is among the `TOP` with the highest scores."""
    calibration: Calibration = field(default_factory=Calibration)
    ranks: tuple[Ranks, ...] = ()
    """Of each class."""
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
        confusion = np.zeros((num_classes, num_classes), np.int64)
        return cls(confusion=confusion, ranks=(Ranks.empty(),) * num_classes)

    def update(self, rows: ScoredRows) -> Self:
        """Add rows."""
        classes, count = len(self.confusion), len(rows.labels)
        if rows.logits.shape != (count, classes):
            raise ValueError(f"logits of shape {rows.logits.shape}, expected {(count, classes)}")
        unlabeled, unknown = int((rows.labels < 0).sum()), int((rows.labels >= classes).sum())
        rows = rows.judged()
        levels = [ranks.level for ranks in self.ranks] or None
        counts = np.bincount(rows.labels * classes + rows.predicted, minlength=classes**2)
        found = Stats(
            confusion=counts.reshape(classes, classes),
            top=_top(rows.labels, rows.logits),
            calibration=Calibration().update(rows.labels, rows.predicted, rows.scores, rows.losses),
            ranks=Ranks.of_classes(rows.scores.astype(np.float32), rows.labels, most=_most(classes), levels=levels),
            unlabeled=unlabeled,
            unknown_class=unknown,
            bad_scores=count - unlabeled - unknown - len(rows.labels),
        )
        return self.merge(found)

    def merge(self, other: Stats) -> Self:
        """Statistics of the rows of both."""
        if self.confusion.shape != other.confusion.shape:
            raise ValueError(f"statistics of {len(self.confusion)} and of {len(other.confusion)} classes do not merge")
        return replace(
            self,
            confusion=self.confusion + other.confusion,
            top=tuple(a + b for a, b in zip(self.top, other.top, strict=True)),
            calibration=self.calibration.merge(other.calibration),
            ranks=tuple(
                a.merge(b, most=_most(len(self.confusion))) for a, b in zip(self.ranks, other.ranks, strict=True)
            ),
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
        accounts = {"scored": self.scored} | {name: getattr(self, name) for name in _ACCOUNTS}
        return {"total": sum(accounts.values())} | accounts

    def scores(self, average: str = "macro") -> dict[str, float | None]:
        """Value of each metric of `NAMES`; None where no row gives one. log_loss is in nats per row."""
        if not self.scored:
            return dict.fromkeys(NAMES)
        found: dict[str, float | None] = {name: float(v) for name, v in confusion_scores(self.confusion).items()}
        found |= {name: found[f"{name}_{average}"] for name in AVERAGED}
        found |= {f"top_{k}_accuracy": hits / self.scored for k, hits in zip(TOP, self.top, strict=True)}
        found |= dict.fromkeys(["log_loss", "brier", "ece"])
        if calibration := self.calibration if self.calibration.total else None:
            found |= {"log_loss": calibration.log_loss(), "ece": calibration.ece()}
            found["brier"] = calibration.brier(len(self.confusion))
        found |= {name: bounds.value if bounds else None for name, bounds in self.bounds().items()}
        return {name: found[name] for name in NAMES}

    def bounds(self) -> dict[str, Value | None]:
        """`RANKED`: value and the ends between which scikit-learn's lies for certain; None if no class has any."""
        return {name: _mean(values) for name, values in self._ranked.items()}

    @cached_property
    def _ranked(self) -> dict[str, list[Value | None]]:
        return {
            "roc_auc": [ranks.roc_auc() for ranks in self.ranks],
            "average_precision": [ranks.average_precision() for ranks in self.ranks],
        }

    def ranked_per_class(self) -> dict[str, list[float | None]]:
        """`RANKED` of each class; None for one without rows on both sides."""
        return {name: [v.value if v else None for v in values] for name, values in self._ranked.items()}

    def per_class(self) -> dict[str, np.ndarray]:
        """precision, recall, f1 float64 [C], 0 where undefined, and support int64 [C]."""
        hits, true, predicted = np.diagonal(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        ratios = {"precision": _ratio(hits, predicted), "recall": _ratio(hits, true)}
        return ratios | {"f1": _ratio(2 * hits, true + predicted), "support": true}

    def pack(self) -> bytes:
        """The statistics as bytes, the same for equal statistics: a line of JSON, then arrays, compressed."""
        cells = np.flatnonzero(self.confusion)
        arrays = [cells, self.confusion.ravel()[cells]]
        arrays += [column for ranks in self.ranks for column in ranks.columns()]
        head = {name: getattr(self, name) for name in _ACCOUNTS} | {
            "classes": len(self.confusion),
            "top": self.top,
            "calibration": asdict(self.calibration),
            "levels": [ranks.level for ranks in self.ranks],
            "lengths": [len(array) for array in arrays],
        }
        planes = [_planes(array) for array in arrays]
        return zlib.compress(json.dumps(head, sort_keys=True).encode() + b"\n" + b"".join(planes))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The inverse of `pack`."""
        line, _, rest = zlib.decompress(data).partition(b"\n")
        head: dict[str, Any] = json.loads(line)
        sizes = np.cumsum([0, *head["lengths"]]) * 8
        cells, counts, *arrays = (_from_planes(rest[i:j]) for i, j in itertools.pairwise(sizes))
        classes = head["classes"]
        confusion = np.zeros(classes**2, np.int64)
        confusion[cells] = counts
        columns = [arrays[i : i + COLUMNS] for i in range(0, len(arrays), COLUMNS)]
        calibration: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in head["calibration"].items()
        }
        return cls(
            confusion=confusion.reshape(classes, classes),
            top=tuple(head["top"]),
            calibration=Calibration(**calibration),
            ranks=tuple(map(Ranks.from_columns, head["levels"], columns)),
            **{name: head[name] for name in _ACCOUNTS},
        )


_ACCOUNTS = ("unlabeled", "unknown_class", "bad_scores", "corrupt")


def confusion_scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics float64 [...] of confusion matrices int64 [..., C, C] (rows = true, columns = predicted), in [-1, 1].

    The conventions are scikit-learn's: macro averages go over the classes that are true or predicted anywhere,
    balanced accuracy over those that are true, and what is undefined is 0.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return margin_scores(hits, true=matrix.sum(axis=-1), predicted=matrix.sum(axis=-2))


def margin_scores(hits: np.ndarray, *, true: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
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


def _top(labels: np.ndarray, logits: np.ndarray) -> tuple[int, ...]:
    """Rows whose class is among the `TOP` highest logits; of equal ones the later classes count as higher, as in
    scikit-learn's `top_k_accuracy_score`."""
    own = logits[np.arange(len(labels)), labels][:, None]
    later = np.arange(logits.shape[1]) > labels[:, None]
    above = ((logits > own) | ((logits == own) & later)).sum(axis=1)
    return tuple(int((above < k).sum()) for k in TOP)


def _most(classes: int) -> int:
    """Bins of each class, so that all together fit a block of 64 kB for ten classes or fewer."""
    return max(96, 15_360 // classes)


def _mean(values: list[Value | None]) -> Value | None:
    found = [value for value in values if value is not None]
    return Value(*(sum(part) / len(found) for part in zip(*found, strict=True))) if found else None


def _planes(array: np.ndarray) -> bytes:
    """int64 as all lowest bytes, then all second ones and so on: what is small compresses to little."""
    signs = (array << 1) ^ (array >> 63)  # small negative numbers as small ones
    return signs.astype("<u8").view(np.uint8).reshape(-1, 8).T.tobytes()


def _from_planes(data: bytes) -> np.ndarray:
    signs = np.frombuffer(data, np.uint8).reshape(8, -1).T.copy().view("<u8").ravel()
    result: np.ndarray = (signs >> np.uint64(1)).astype(np.int64) ^ -(signs & np.uint64(1)).astype(np.int64)
    return result
