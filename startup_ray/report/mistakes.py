"""Wrong predictions of an evaluation: the most confident ones, and examples of each confusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from startup_ray.dataset import Dataset
from startup_ray.report.pictures import Picture, pictures
from startup_ray.storage import Folder

MAX_CELLS = 40
"""Confusions that are shown with examples."""
OF_CELL = 2
"""Examples of each."""
Ordered = tuple[float, str, dict[str, Any]]
"""Confidence, id, and the row."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong prediction."""

    id: str
    label: str
    predicted: str
    confidence: float
    """The model's probability for `predicted`."""
    picture: Picture


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Of one evaluation."""

    surest: tuple[Mistake, ...] = ()
    """The most confident first."""
    of_cells: tuple[tuple[Mistake, ...], ...] = ()
    """Of each confusion, the most frequent first: its most confident ones."""


def read_mistakes(dataset: Dataset, predictions: Folder, classes: Sequence[str], most: int) -> Mistakes:
    """Of the stored predictions; `most` limits the surest."""
    surest: list[Ordered] = []
    by_cell: dict[tuple[str, str], list[Ordered]] = {}
    sizes: Counter[tuple[str, str]] = Counter()
    for confidence, row in _wrong(predictions, classes):
        cell = (row["label"], row["predicted"])
        sizes[cell] += 1
        for heap, limit in ((surest, most), (by_cell.setdefault(cell, []), OF_CELL)):
            heappush(heap, (confidence, row["id"], row))
            if len(heap) > limit:
                heappop(heap)
    cells = sorted(sizes, key=lambda cell: (-sizes[cell], cell))[:MAX_CELLS]
    examples = [by_cell[cell] for cell in cells]
    shown = pictures(dataset, {name for heap in (surest, *examples) for _, name, _ in heap})

    def told(heap: list[Ordered]) -> tuple[Mistake, ...]:
        return tuple(
            Mistake(**row, confidence=confidence, picture=shown[name])
            for confidence, name, row in sorted(heap, reverse=True)
        )

    return Mistakes(surest=told(surest), of_cells=tuple(map(told, examples)))


def _wrong(predictions: Folder, classes: Sequence[str]) -> Iterable[tuple[float, dict[str, Any]]]:
    """(probability, row) of wrong predictions, part by part, so that scores of large splits are never all held."""
    filesystem, root = predictions.filesystem()
    known = pa.array(classes, pa.string())
    for name in predictions.list():
        table = pq.read_table(f"{root}/{name}", filesystem=filesystem)
        differ = pc.fill_null(pc.not_equal(table["label"], table["predicted"]), False)
        wrong = table.filter(pc.and_(differ, pc.is_in(table["label"], known)))
        if not len(wrong):
            continue
        scores = np.asarray(wrong["scores"].combine_chunks().flatten()).reshape(len(wrong), -1)
        rows = wrong.select(["id", "label", "predicted"]).to_pylist()
        yield from zip(scores.max(axis=1, initial=0).astype(float).tolist(), rows, strict=True)
