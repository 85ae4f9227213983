"""A body that was fetched -> a row of the ledger, and of the images if it became one.

outcome, image = finish(item, fetched, options)
"""

from __future__ import annotations

import hashlib
from typing import Any

from startup_ray.dataset import choose_split
from startup_ray.forgotten import NOTHING, Forgotten, forgotten_outcome
from startup_ray.ingest.decode import Decoded, decode
from startup_ray.ingest.encode import encode
from startup_ray.ingest.exchange import Fetched
from startup_ray.items import Item
from startup_ray.job import IngestOptions
from startup_ray.ledger import Outcome, redact
from startup_ray.regions import blur_mark, boxes_of

MAX_REASON = 200


def finish(
    row: Item, fetched: Fetched, options: IngestOptions, attempts: int = 0, forgotten: Forgotten = NOTHING
) -> tuple[Outcome, dict[str, Any] | None]:
    """Row of the ledger, and of the images if it became one; `attempts` were made before."""
    sha256 = hashlib.sha256(fetched.body).hexdigest() if fetched.body is not None else None
    if forgotten.takes(sha256=sha256):
        return forgotten_outcome(row.id), None
    decoded = _decoded(row, fetched, options, sha256)
    outcome = Outcome(
        id=row.id,
        url=redact(row.url),
        status=decoded.status,
        reason=blur_mark(row.blur) if decoded.status == "ok" else one_line(decoded.reason),
        http_status=fetched.http_status,
        attempts=attempts + fetched.attempts,
        bytes=fetched.size,
        sha256=sha256,
        elapsed_s=fetched.elapsed_s,
    )
    if decoded.pixels is None or sha256 is None:
        return outcome, None
    split = row.split or choose_split(row.url, sha256, options.split)
    size = {"width": decoded.width, "height": decoded.height}
    image = {"id": row.id, "sha256": sha256, "label": row.label, "split": split, **size, "own": row.own}
    is_kept = options.image.store == "original"
    return outcome, image | {"image": fetched.body if is_kept else encode(decoded.pixels, options.image)}


def _decoded(row: Item, fetched: Fetched, options: IngestOptions, sha256: str | None) -> Decoded:
    if fetched.body is None:
        return Decoded(status=fetched.status, reason=fetched.reason)
    for named in (row.hashes or "").split():
        kind, _, digest = named.partition(":")
        found = sha256 if kind == "sha256" else hashlib.new(kind, fetched.body, usedforsecurity=False).hexdigest()
        if found != digest:
            return Decoded(status="changed", reason=f"its {kind} is not that of the manifest")
    return decode(fetched.body, options.image, options.fetch.max_pixels, boxes_of(row.blur))


def one_line(text: str) -> str:
    """Text from anywhere -> at most MAX_REASON characters that every file and terminal can take.

    A server's words may hold line ends, control characters, and surrogates for bytes that are no UTF-8.
    """
    plain = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_REASON])
    return " ".join(plain.split())[:MAX_REASON]
