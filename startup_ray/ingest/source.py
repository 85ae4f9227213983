"""Where a manifest is really read: a path or a URL as it is, a sample from a server of ours.

with open_source("sample:digits") as source:
    source.location               # http://127.0.0.1:PORT/manifest.json
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from startup_ray.runs import location_of


@dataclass(frozen=True)
class Source:
    """Where the manifest is really read, and what may be fetched from beside public addresses."""

    location: str
    endpoints: tuple[tuple[str, int], ...] = ()


@contextmanager
def open_source(manifest: str) -> Iterator[Source]:
    """The manifest as it can be read from another process of this node; a sample is served meanwhile."""
    if not manifest.startswith("sample:"):
        yield Source(location_of(manifest))
        return
    from startup_ray.ingest.samples import serve

    with serve(manifest) as sample:
        yield Source(sample.manifest, (sample.endpoint,))
