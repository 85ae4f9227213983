"""The stored predictions of an evaluation, without their scores: what slices and comparisons are made of.

rows = read_rows(evaluation / "predictions", classes)
rows.ids[i], rows.labels[i], rows.predicted[i]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from startup_ray.storage import Folder


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Scored rows in id order; N of them."""

    ids: Any
    """`pyarrow.StringArray` [N]."""
    labels: np.ndarray
    """int64 [N], places in the model's classes."""
    predicted: np.ndarray
    """int64 [N]"""
    losses: np.ndarray
    """Log-loss float64 [N] in nats."""


def read_rows(predictions: Folder, classes: Sequence[str]) -> Rows:
    """Rows that have a label of the model and a prediction, of `<evaluation>/predictions`; none if nothing is there."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    filesystem, root = predictions.filesystem()
    names = pa.array(classes, pa.string())
    columns = ["id", "label", "predicted", "loss"]
    schema = pa.schema([(name, pa.string()) for name in columns[:3]] + [("loss", pa.float64())])
    found = [
        pq.read_table(f"{root}/{name}", columns=columns, filesystem=filesystem) for name in predictions.list()
    ] or [schema.empty_table()]
    table = pa.concat_tables(found)
    table = table.filter(pc.and_(pc.is_in(table["label"], names), pc.is_valid(table["predicted"])))
    return Rows(
        ids=table["id"].combine_chunks(),
        labels=_places(table["label"], names),
        predicted=_places(table["predicted"], names),
        losses=table["loss"].to_numpy(),
    )


def _places(column: Any, names: Any) -> np.ndarray:
    import pyarrow.compute as pc

    result: np.ndarray = pc.index_in(column, names).to_numpy().astype(np.int64)
    return result
