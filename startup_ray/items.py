"""Rows of a manifest as values: an item to fetch, or a bad row that becomes a row of the ledger.

    parse_row({"id": 7, "url": "https://example.com/7.jpg"}, position=0)      # Item(position=0, id='7', ...)
    parse_row({"id": 8, "url": "file:///etc/passwd"}, position=1)             # BadRow(status='blocked_scheme', ...)

Every row becomes exactly one of the two, whatever it holds. An id is data, never a path. What is no http(s) URL is
judged by `sources.Sources.judge`, except for what a reader found in a folder or in a file that the job names.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from startup_ray.dataset import SPLITS
from startup_ray.ingest_options import ColumnOptions
from startup_ray.ledger import portless, redact
from startup_ray.regions import parse_boxes

MAX_ID = 512
"""Characters of an id."""
MAX_LABEL = 512
"""Characters of a label."""
MAX_URL = 8_000
"""Characters of a URL; servers refuse request lines of more than 8 KiB (RFC 9112, section 3)."""


MAX_OWN, MAX_OWN_NAME, MAX_OWN_TEXT = 32, 64, 256
"""Columns of the user's own, characters of their names, and of their values."""

HASHES = {"sha256": 64, "sha512": 128, "md5": 32}
"""Hashes that a manifest may name, with the hex digits of each."""

Fault = Literal["bad_item", "bad_url", "blocked_scheme", "forgotten"]
Judge = Callable[[str], tuple[str, str, str]]
"""What is no http(s) URL -> an absolute URL, and a state and reason if it may not be read."""

_COLUMNS = ColumnOptions()
_HTTP = re.compile(r"https?:", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image to fetch."""

    position: int
    """Place in the manifest, from 0."""
    id: str
    url: str
    label: str | None = None
    split: str | None = None
    """`train`, `val`, `test`, or None to let the content decide."""
    own: str | None = None
    """JSON object of the row's other columns (see `own_columns`); None without any."""
    hashes: str | None = None
    """What the body must have, `sha256:<hex>`, several apart by blanks; None if it may be any."""
    blur: str | None = None
    """Boxes to blur as canonical JSON (see `regions.parse_boxes`); None without any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that is no item, as the ledger tells it."""

    position: int
    id: str
    """Empty when the row has no usable id."""
    url: str
    status: Fault
    reason: str


@dataclass(frozen=True)
class NoRow:
    """Stands for a row that could not even be read."""

    reason: str
    id: str = ""


class OwnUrl(str):
    """A URL that a reader made for what it found itself; a value in a list never is one."""

    __slots__ = ()


def http_only(url: str) -> tuple[str, str, str]:
    """The judge where nothing is allowed that is not http(s)."""
    scheme, colon, _ = url.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return url, "bad_url", "url has no scheme"
    return url, "blocked_scheme", f"{scheme}: is neither http nor https"


def parse_row(
    value: Any, position: int, *, columns: ColumnOptions = _COLUMNS, judge: Judge = http_only, place: str = ""
) -> Item | BadRow:
    """One row of a manifest -> an item, or what is wrong with it.

    Args:
        value: an object of JSON, or anything else, which is a bad row.
        place: the id of a row that has no column of ids, and no URL to make one from.
    """
    if not isinstance(value, dict):
        left = value if isinstance(value, NoRow) else NoRow("not an object")
        return BadRow(position=position, id=left.id, url="", status="bad_item", reason=left.reason)
    url, url_fault = _text(value.get(columns.url), MAX_URL, numbers=False)
    item_id, id_fault = _id(value, columns.id, url, place)
    label, label_fault = _optional(value, columns.label)
    split = value.get(columns.split) if columns.split else None
    # What lies in the same file needs no hash; there a column of this name may tell of the body it was made from.
    hashes, hash_fault = (None, "") if isinstance(url, OwnUrl) else _hashes(value, columns)
    blur, blur_fault = _blur(value, columns.blur)

    def bad(status: Fault, reason: str) -> BadRow:
        return BadRow(position=position, id=item_id or "", url=redact(url or ""), status=status, reason=reason)

    for fault in (id_fault, label_fault):
        if fault:
            return bad("bad_item", fault)
    if split is not None and split not in SPLITS:
        return bad("bad_item", f"{columns.split} is none of {', '.join(SPLITS)}")
    for fault in (hash_fault, blur_fault):
        if fault:
            return bad("bad_item", fault)
    if url is None:
        return bad("bad_item" if "long" in url_fault else "bad_url", f"{columns.url} {url_fault}")
    url, status, reason = (str(url), "", "") if isinstance(url, OwnUrl) else _judge(url, judge)
    if status:
        return bad(cast("Fault", status), reason)
    own = own_columns(value, columns)
    return Item(
        position=position, id=item_id or "", url=url, label=label, split=split, own=own, hashes=hashes, blur=blur
    )


def own_columns(row: Mapping[str, Any], columns: ColumnOptions = _COLUMNS) -> str | None:
    """Columns of the user's own as canonical JSON: texts, numbers and truth values, within the limits.

    What is longer, nested or one too many is left out; URLs are redacted. These only part results, they decide nothing.
    """
    found: dict[str, Any] = {}
    for name in own_names(row, columns):
        value = row[name]
        is_known = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
        if is_known and _is_text(name, MAX_OWN_NAME) and _is_text(str(value), MAX_OWN_TEXT):
            found[name] = redact(value) if isinstance(value, str) and "://" in value else value
    return json.dumps(found) if found else None


def own_names(names: Iterable[str], columns: ColumnOptions) -> list[str]:
    """Of a row's columns those of the user's own, as many as are kept."""
    return sorted(set(names) - known_names(columns))[:MAX_OWN]


@lru_cache(maxsize=8)
def known_names(columns: ColumnOptions) -> frozenset[str]:
    """Columns that mean something to us, images aside."""
    names = (columns.id, columns.url, columns.label, columns.split, columns.blur, *_hash_columns(columns))
    return frozenset(name for name in names if name is not None)


@lru_cache(maxsize=8)
def _hash_columns(columns: ColumnOptions) -> dict[str, str]:
    """Kinds of hashes by the names of their columns."""
    return {getattr(columns, kind): kind for kind in HASHES if getattr(columns, kind) is not None}


def _id(row: Mapping[str, Any], column: str, url: str | None, place: str) -> tuple[str | None, str]:
    """The row's id, and what is wrong with it; without a column of ids one that stays as long as its URL does."""
    if column in row:
        found, fault = _text(row[column], MAX_ID)
        return found, f"{column} {fault}" if fault else ""
    return hashlib.sha256(portless(redact(url)).encode()).hexdigest()[:16] if url else place, ""


def _optional(row: Mapping[str, Any], column: str | None) -> tuple[str | None, str]:
    value = row.get(column) if column else None
    found, fault = _text(value, MAX_LABEL)
    return found, f"{column} {fault}" if fault and value is not None else ""


def _hashes(row: Mapping[str, Any], columns: ColumnOptions) -> tuple[str | None, str]:
    """Hashes that a row names, and what is wrong with one."""
    found = []
    for column, kind in _hash_columns(columns).items():
        value = row.get(column)
        if value is None or value == "":
            continue
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{{HASHES[kind]}}}", value):
            return None, f"{column} is not {HASHES[kind]} hex digits"
        found.append(f"{kind}:{value.lower()}")
    return " ".join(found) or None, ""


def _blur(row: Mapping[str, Any], column: str | None) -> tuple[str | None, str]:
    """Boxes of a row, and what is wrong with them; a column that is misspelt must not mean that there are none."""
    if column is None:
        return None, ""
    if column not in row:
        return None, f"{column} is missing; null says that nothing is to be blurred"
    boxes, fault = parse_boxes(row[column])
    return boxes, f"{column} {fault}" if fault else ""


def _is_text(text: str, limit: int) -> bool:
    try:
        return len(text) <= limit and bool(text.encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _text(value: Any, limit: int, *, numbers: bool = True) -> tuple[str | None, str]:
    """A string, or a whole number as one; else None and what is wrong."""
    if value is None:
        return None, "is missing"
    if numbers and isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64:
        return str(value), ""
    if not isinstance(value, str):
        return None, "is neither a string nor a whole number" if numbers else "is not a string"
    if not value.strip():
        return None, "is empty"
    if len(value) > limit:
        return None, f"is longer than {limit} characters"
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half a surrogate pair, which no UTF-8 can hold
        return None, "is not Unicode text"
    return value, ""


def _judge(url: str, judge: Judge) -> tuple[str, str, str]:
    """A URL, and a state and reason if it cannot be fetched."""
    if url != url.strip() or any(ord(sign) < 32 or ord(sign) == 127 for sign in url):
        return url, "bad_url", "url has control characters, or blanks around it"
    if not _HTTP.match(url):
        return judge(url)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its words hold what stands before the host, passwords too
        return url, "bad_url", "url cannot be parsed"
    return (url, "", "") if parts.hostname else (url, "bad_url", "url has no host")
