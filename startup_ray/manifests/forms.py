"""Forms of manifests, told by the endings of their names.

form_of("s3://lists/cats.csv.gz?region=eu-central-1")     # Form(kind='csv', is_packed=True)
form_of("photos")                                         # None: not the name of a list
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["json", "jsonl", "csv", "tsv", "txt", "parquet"]

KINDS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".parquet": "parquet",
}
PACKED = ".gz"
ENDINGS = f"{', '.join(KINDS)}, each also with {PACKED}"
"""For people."""
STORES = ("s3", "gs")
"""Schemes of object stores."""


@dataclass(frozen=True)
class Form:
    """What a list is written in."""

    kind: Kind
    is_packed: bool = False
    """By gzip."""


def form_of(location: str) -> Form | None:
    """The form of a list at a path or URL; None if the name tells none."""
    name = path_of(location).lower()
    plain = name.removesuffix(PACKED)
    kind = next((kind for ending, kind in KINDS.items() if plain.endswith(ending)), None)
    return Form(kind, is_packed=plain != name) if kind else None


def scheme_of(location: str) -> str:
    """`http`, `https`, `s3`, ..., lower case; empty for a path."""
    return location.partition("://")[0].lower() if "://" in location else ""


def path_of(location: str) -> str:
    """A location without its query, if it is a URL.

    Raises:
        ValueError: a URL that cannot be parsed.
    """
    return urlsplit(location).path if "://" in location else location


def name_of(location: str) -> str:
    """The last part of a location."""
    return path_of(location).rstrip("/").rpartition("/")[2]
