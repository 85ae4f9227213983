"""What a report tells of a dataset: the way of its items, what was left out and where, its classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pyarrow.compute as pc

from startup_ray.dataset import SPLITS, Dataset
from startup_ray.dataset_tables import ledger_tables
from startup_ray.ledger import FORGOTTEN, STATES
from startup_ray.report.pictures import Picture, pictures, shards
from startup_ray.slices import host_of

MAX_HOSTS = 8
MAX_LABELS = 40
"""Classes that are shown with their rows; the rest are counted."""
FACES = 60
"""Thumbnails of all classes together, at most 6 of each."""
_ARRIVED = ("ok", "duplicate", "not_image", "corrupt", "too_many_pixels", "too_small")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Items left after a step of the data's way."""

    name: str
    items: int
    share: float
    """Of the manifest's items, in [0, 1]."""
    lost: int
    """Items that this step took away."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Items that ended in one state of the ledger."""

    status: str
    items: int
    meaning: str
    id: str
    """Of an example, with its URL and reason."""
    url: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class HostFailures:
    """Items of one host that did not become images."""

    host: str
    items: int
    states: str
    """The most frequent ones, with their counts."""


@dataclass(frozen=True, kw_only=True)
class LabelRows:
    """Rows of one class."""

    label: str
    splits: tuple[int, ...]
    """In the order of `SPLITS`."""
    faces: tuple[Picture, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.splits)


def funnel(dataset: Dataset) -> list[Stage]:
    """From the manifest to the images that were kept."""
    counts = dataset.counts
    forgotten = counts.get(FORGOTTEN, 0)
    steps = {
        "in the manifest": dataset.items,
        **({"not forgotten": dataset.items - forgotten} if forgotten else {}),
        "fetched": sum(counts.get(status, 0) for status in _ARRIVED),
        "valid images": counts.get("ok", 0) + counts.get("duplicate", 0),
        "unique images": counts.get("ok", 0),
    }
    before = [dataset.items, *steps.values()]
    return [
        Stage(name=name, items=items, share=items / max(dataset.items, 1), lost=last - items)
        for last, (name, items) in zip(before, steps.items(), strict=False)
    ]


def left_out(dataset: Dataset) -> list[LeftOut]:
    """Every state but `ok`, the most frequent first, each with the example that stands first in the ledger."""
    wanted = {status for status in dataset.counts if status != "ok"}
    examples: dict[str, dict[str, Any]] = {}
    columns = ["status", "id", "url", "reason"]
    for table in ledger_tables(dataset, columns, pc.field("status") != "ok") if wanted else ():
        for row in table.to_pylist():
            examples.setdefault(row["status"], row)
        if wanted <= examples.keys():
            break
    found = [
        LeftOut(
            status=status,
            items=dataset.counts[status],
            meaning=meaning(status),
            **{key: examples.get(status, {}).get(key) or "" for key in ("id", "url", "reason")},
        )
        for status in wanted
    ]
    return sorted(found, key=lambda state: (-state.items, state.status))


def meaning(status: str) -> str:
    """What a state of the ledger means, an HTTP status by its name."""
    if not status.startswith("http_"):
        return STATES.get(status, "").replace("`", "")
    try:
        return f"the server answered {HTTPStatus(int(status[5:])).phrase!r}"
    except ValueError:
        return STATES["http_NNN"]


def failing_hosts(dataset: Dataset) -> list[HostFailures]:
    """Hosts with most items that were not kept, duplicates aside; none if all failures are of one host."""
    found: dict[str, Counter[str]] = {}
    keep = ~pc.field("status").isin(["ok", "duplicate", "bad_item", FORGOTTEN])
    for table in ledger_tables(dataset, ["url", "status"], keep):
        for url, status in zip(table["url"].to_pylist(), table["status"].to_pylist(), strict=True):
            found.setdefault(host_of(url, "(no host)"), Counter())[status] += 1
    worst = sorted(found.items(), key=lambda pair: (-pair[1].total(), pair[0]))[:MAX_HOSTS]
    return [
        HostFailures(host=host, items=states.total(), states=_counts(states))
        for host, states in worst
        if len(found) > 1
    ]


def label_rows(dataset: Dataset) -> list[LabelRows]:
    """Classes by their number of rows, with the first images of each that come to hand."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[str, list[str]] = {}
    each = max(1, min(6, FACES // max(len(dataset.classes), 1)))
    for shard in shards(dataset):
        for group in range(shard.num_row_groups):
            table = shard.read_row_group(group, ["id", "label", "split"])
            labels = table["label"].to_pylist()
            counts.update(zip(labels, table["split"].to_pylist(), strict=True))
            for name, label in zip(table["id"].to_pylist(), labels, strict=True):
                if label is not None and len(chosen := first.setdefault(label, [])) < each:
                    chosen.append(name)
    rows = [LabelRows(label=label, splits=tuple(counts[label, split] for split in SPLITS)) for label in dataset.classes]
    shown = sorted(rows, key=lambda row: -row.total)[:MAX_LABELS]
    found = pictures(dataset, {name for row in shown for name in first.get(row.label, [])})
    return [
        LabelRows(label=row.label, splits=row.splits, faces=tuple(found[name] for name in first.get(row.label, [])))
        for row in shown
    ]


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in states.most_common(3))
