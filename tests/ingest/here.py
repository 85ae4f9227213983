"""An ingest without Ray: the plan, a real worker and the seal in this process, as the pipeline puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from startup_ray.dataset import Dataset, write_dataset
from startup_ray.forgotten import read_forgotten
from startup_ray.ingest.forget import FORGETTING, erase
from startup_ray.ingest.plan import make_plan
from startup_ray.ingest.seal import clear_spool, seal
from startup_ray.ingest.work import Task, Worker
from startup_ray.items import BadRow, Item
from startup_ray.job import FetchOptions, ImageOptions, IngestOptions
from startup_ray.lease import hold
from startup_ray.ledger import LOST, NOTHING, Again
from startup_ray.runs import DATASET
from startup_ray.storage import Folder
from tests.fakes import read_ledger

OPTIONS = IngestOptions(
    manifest="m.json",
    image=ImageOptions(size=(4, 4), channels=1),
    fetch=FetchOptions(allow_private=(IPv4Network("127.0.0.1/32"),), retries=0),
)


def ingest(
    folder: Folder, rows: Sequence[Item | BadRow], *, again: Again = NOTHING, group: str | None = None
) -> Dataset:
    """A dataset of these rows, in chunks of three."""
    with hold(folder) as lease:
        for _ in range(4):
            forgotten = read_forgotten(folder)
            erase(folder, forgotten, lease.fence)
            plan = make_plan(rows, folder, folder, 3, again, forgotten)
            folder.delete(DATASET)
            folder.delete(FORGETTING)
            worker = Worker(Task(options=OPTIONS, folder=folder, fence=lease.fence, forgotten=forgotten))
            for name in plan.todo:
                list(worker.process(name))
            worker.close()
            sealed = seal(folder, list(plan.chunks), lease.fence, OPTIONS.image if group else None)
            if not sealed.lost:
                break
            again = Again((LOST,))
        clear_spool(folder)
        dataset = Dataset(
            folder=folder,
            digest=sealed.digest,
            items=sealed.items,
            counts=sealed.counts,
            splits=sealed.splits,
            classes=sealed.classes,
            image_shape=(4, 4, 1),
            shards=sealed.shards,
            manifest="m.json",
            manifest_digest="m",
            image=OPTIONS.image,
            group=group,
        )
        write_dataset(dataset)
    return dataset


def ledger(folder: Folder) -> list[dict[str, Any]]:
    """Its rows without how long they took."""
    return [{name: value for name, value in row.items() if name != "elapsed_s"} for row in read_ledger(folder)]
