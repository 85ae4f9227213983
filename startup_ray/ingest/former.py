"""What became of items before, taken over into new chunks without a request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from startup_ray.dataset import choose_split
from startup_ray.ingest.chunks import Part, Spooled, read_part, read_shard
from startup_ray.items import Item
from startup_ray.job import SplitOptions
from startup_ray.ledger import Outcome
from startup_ray.storage import Folder


def recall(
    folder: Folder, rows: Sequence[Spooled], split: SplitOptions
) -> tuple[dict[int, Outcome], dict[int, dict[str, Any]]]:
    """Outcomes, and rows of `image_schema`, by index, of the rows that point to a former part.

    Label, split and own columns are those of the manifest as it is now. What cannot be found any more is left out.
    """
    outcomes: dict[int, Outcome] = {}
    images: dict[int, dict[str, Any]] = {}
    for name in {spooled.part for spooled in rows if spooled.part is not None}:
        places = {i: spooled.place for i, spooled in enumerate(rows) if spooled.part == name}
        try:
            part = read_part(folder, name)
            pictures = _pictures(folder, part)
        except FileNotFoundError:
            continue
        for i, row in zip(places, part.table.take(list(places.values())).to_pylist(), strict=True):
            item, picture = rows[i].row, pictures.get(places[i])
            assert isinstance(item, Item)
            outcomes[i] = Outcome(**row)
            if picture is not None:
                own = {"label": item.label, "split": item.split or choose_split(item.url, row["sha256"], split)}
                images[i] = picture | own | {"own": item.own}
    return outcomes, images


def _pictures(folder: Folder, part: Part) -> dict[int | None, dict[str, Any]]:
    """Images of a part by their row in it."""
    if not part.shard:
        return {}
    is_ok = [status == "ok" for status in part.table["status"].to_pylist()]
    images = read_shard(folder, part.shard).to_pylist()
    return {place: images[number - 1] for place, number in enumerate(accumulate(is_ok)) if is_ok[place]}
