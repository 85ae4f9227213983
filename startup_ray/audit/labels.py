"""How many images each class has, in each split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from startup_ray.audit.finding import CLASSES, Finding
from startup_ray.audit.survey import Survey
from startup_ray.dataset import SPLITS, Dataset

FEW = 10
"""Images below which a class is rare."""
UNEQUAL = 10
"""Times that the largest class may be larger than another."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Images of one class."""

    name: str
    splits: tuple[int, ...]
    """In the order of `SPLITS`."""

    @property
    def total(self) -> int:
        return sum(self.splits)


def read_labels(dataset: Dataset, survey: Survey) -> list[Label]:
    """The classes, the largest first."""
    counts = np.zeros((len(dataset.classes), len(SPLITS)), np.int64)
    is_labelled = survey.labels >= 0
    np.add.at(counts, (survey.labels[is_labelled], survey.splits[is_labelled]), 1)
    found = [Label(name=name, splits=tuple(row)) for name, row in zip(dataset.classes, counts.tolist(), strict=True)]
    return sorted(found, key=lambda label: -label.total)


def imbalance(labels: list[Label]) -> float:
    """Images of the largest class per image of the smallest; 1 without classes."""
    return labels[0].total / max(labels[-1].total, 1) if labels else 1.0


def findings(dataset: Dataset, survey: Survey, labels: list[Label]) -> list[Finding]:
    """Classes that are rare, missing in a split or far smaller than the largest, and images without a label."""
    used = [i for i, split in enumerate(SPLITS) if dataset.splits.get(split, 0)]
    missing = {label.name: [SPLITS[i] for i in used if not label.splits[i]] for label in labels}
    lacking = {name: splits for name, splits in missing.items() if splits}
    rare = [label.name for label in reversed(labels) if label.total < FEW]
    small = [label.name for label in reversed(labels) if label.total * UNEQUAL < labels[0].total]
    bare = np.flatnonzero(survey.labels < 0)
    first = next(iter(lacking.items()), ("", []))
    of_classes = [
        ("missing_labels", tuple(lacking), f"for example {first[0]!r}, in {' and '.join(first[1])}"),
        ("rare_labels", tuple(rare), f"below {FEW} images"),
        ("imbalance", tuple(small), f"the largest has {imbalance(labels):,.0f} times the images of the smallest"),
    ]
    found = [
        Finding(kind=kind, count=len(names), of=len(labels), unit=CLASSES, note=note, names=names)
        for kind, names, note in of_classes
    ]
    without = len(bare) if labels else 0  # a dataset without any labels was meant so
    return [*found, Finding(kind="unlabelled", count=without, of=len(survey), places=tuple(bare.tolist()))]
