"""Metrics of parts of the scored rows: of each host, of small and large originals, the worst first.

slices = read_slices(rows, dataset, ["host", "width"], num_classes=10, average="macro")
slices["host"][0]       # {'value': 'img.example.com', 'rows': 90, 'accuracy': 0.71, 'low': 0.61, ...}
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from startup_ray.confidence import wilson
from startup_ray.dataset import Dataset
from startup_ray.judged import Rows
from startup_ray.metrics import AVERAGED, margin_scores

SIDES = ("width", "height")
"""Of the original in pixels, parted in powers of two."""
log = logging.getLogger("startup_ray")

MOST = 50
"""Slices that are told of each column, the worst."""
REST = "(other)"
"""Slices beyond MAX_VALUES, and rows without a value, together."""
MAX_VALUES = 1_000
MAX_NUMBERS = 20
"""Different numbers of a column that are slices of their own; more are parted into RANGES."""
RANGES = 8


def read_slices(
    rows: Rows, dataset: Dataset, columns: Sequence[str], *, num_classes: int, average: str
) -> dict[str, list[dict[str, Any]]]:
    """Slices of each column, those first that are most surely bad: by the upper end of accuracy's interval.

    Returns:
        By column, at most `MOST` of `{"value", "rows", "accuracy", "low", "high", "precision", "recall", "f1",
        "log_loss"}`; `low` and `high` are the ends of accuracy's 95% interval (Wilson).

    Raises:
        StorageError: the dataset cannot be read.
    """
    found = {}
    for column in columns:
        values = _values(rows, dataset, column)
        if column != "host" and len(values) and (values == REST).all():  # files have none, and it is asked by default
            log.warning("evaluate: no row has a column %r to make slices of", column)
        found[column] = _judged(rows, values, num_classes, average) if len(values) else []
    return found


def _values(rows: Rows, dataset: Dataset, column: str) -> np.ndarray:
    """str [N], one of each row; REST where the dataset has none."""
    import pyarrow.compute as pc

    found = np.full(len(rows.ids), None, object)
    read = host_of if column == "host" else bucket if column in SIDES else partial(_own, column)
    for ids, values in _columns(dataset, column):
        places = pc.index_in(ids, rows.ids)
        is_here = pc.is_valid(places)
        found[places.filter(is_here).to_numpy()] = [read(value) for value in values.filter(is_here).to_pylist()]
    return np.array([REST if value is None else str(value) for value in _ranges(found.tolist())], str)


def _columns(dataset: Dataset, column: str) -> Iterator[tuple[Any, Any]]:
    """Ids and values, file by file."""
    import pyarrow.parquet as pq

    filesystem, root = dataset.folder.filesystem()
    names = [f"{root}/images/{name}" for name in dataset.shards]
    if column == "host":
        names, column = [f"{root}/ledger/{name}" for name in dataset.folder.list("ledger")], "url"
    elif column not in SIDES:
        column = "own"
    for name in names:
        if column not in pq.read_schema(name, filesystem=filesystem).names:  # a dataset of a former version
            continue
        table = pq.read_table(name, columns=["id", column], filesystem=filesystem)
        yield table["id"].combine_chunks(), table[column].combine_chunks()


def bucket(pixels: int | None) -> str:
    """Powers of two: 100 is in `64 to 127`."""
    if not pixels or pixels < 1:
        return REST
    low = 1 << (int(pixels).bit_length() - 1)
    return f"{low:,} to {2 * low - 1:,}" if low > 1 else "1"


def host_of(url: str | None, otherwise: str = REST) -> str:
    """The host of a URL that may be none."""
    try:
        return urlsplit(url or "").hostname or otherwise
    except ValueError:  # brackets that are no IPv6 address
        return otherwise


def _own(column: str, text: str | None) -> Any:
    return json.loads(text).get(column) if text else None


def _ranges(values: list[Any]) -> list[Any]:
    """The same; many different numbers as ranges with about as many rows each."""
    numbers = [value for value in values if value is not None]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        return values
    if len(set(numbers)) <= MAX_NUMBERS:
        return values
    ordered = np.sort(np.array(numbers))
    lows = np.unique(ordered[[len(ordered) * i // RANGES for i in range(RANGES)]])
    highs = ordered[[*(np.searchsorted(ordered, lows[1:]) - 1), -1]]
    places = np.searchsorted(lows, numbers, side="right") - 1
    texts = [
        f"{low:.10g} to {high:.10g}" if low < high else f"{low:.10g}" for low, high in zip(lows, highs, strict=True)
    ]
    names = iter([texts[place] for place in places])
    return [value if value is None else next(names) for value in values]


def _judged(rows: Rows, values: np.ndarray, num_classes: int, average: str) -> list[dict[str, Any]]:
    names, places, sizes = np.unique(values, return_inverse=True, return_counts=True)
    if len(names) > MAX_VALUES:
        is_kept = np.isin(places, np.argsort(-sizes, kind="stable")[:MAX_VALUES])
        names, places = np.unique(np.where(is_kept, values, REST), return_inverse=True)
    shape = (len(names), num_classes)
    true, predicted, hits = np.zeros((3, *shape), np.int64)
    np.add.at(true, (places, rows.labels), 1)
    np.add.at(predicted, (places, rows.predicted), 1)
    is_hit = rows.labels == rows.predicted
    np.add.at(hits, (places[is_hit], rows.labels[is_hit]), 1)
    scores = margin_scores(hits, true=true, predicted=predicted)
    counts, losses = true.sum(axis=1), np.bincount(places, weights=rows.losses, minlength=len(names))
    found = [
        {
            "value": str(name),
            "rows": int(counts[i]),
            "accuracy": float(scores["accuracy"][i]),
            **dict(zip(("low", "high"), wilson(int(hits[i].sum()), int(counts[i])), strict=True)),
            **{metric: float(scores[f"{metric}_{average}"][i]) for metric in AVERAGED},
            "log_loss": float(losses[i] / counts[i]),
        }
        for i, name in enumerate(names)
    ]
    return sorted(found, key=lambda part: (part["high"], part["value"]))[:MOST]
