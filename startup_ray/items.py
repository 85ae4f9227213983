"""Rows of a manifest as values: an item to fetch, or a bad row that becomes a row of the ledger.

    parse_row({"id": 7, "url": "https://example.com/7.jpg"}, position=0)      # Item(position=0, id='7', ...)
    parse_row({"id": 8, "url": "file:///etc/passwd"}, position=1)             # BadRow(status='blocked_scheme', ...)

Every row becomes exactly one of the two, whatever it holds. An id is data, never a path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from startup_ray.dataset import SPLITS
from startup_ray.ledger import redact

MAX_ID = 512
"""Characters of an id."""
MAX_LABEL = 512
"""Characters of a label."""
MAX_URL = 8_000
"""Characters of a URL; servers refuse request lines of more than 8 KiB (RFC 9112, section 3)."""


MAX_OWN, MAX_OWN_NAME, MAX_OWN_TEXT = 32, 64, 256
"""Columns of the user's own, characters of their names, and of their values."""
_KNOWN = {"id", "url", "label", "split"}


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


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that is no item, as the ledger tells it."""

    position: int
    id: str
    """Empty when the row has no usable id."""
    url: str
    status: Literal["bad_item", "bad_url", "blocked_scheme"]
    reason: str


@dataclass(frozen=True)
class NotJson:
    """Stands for a row that could not even be parsed."""

    reason: str


def parse_row(value: Any, position: int) -> Item | BadRow:
    """One JSON value of a manifest -> an item, or what is wrong with it."""
    row = value if isinstance(value, dict) else {}
    item_id, id_fault = _text(row.get("id"), MAX_ID)
    url, url_fault = _text(row.get("url"), MAX_URL, numbers=False)
    label, label_fault = _text(row.get("label"), MAX_LABEL)
    split = row.get("split")

    def bad(status: Literal["bad_item", "bad_url", "blocked_scheme"], reason: str) -> BadRow:
        return BadRow(position=position, id=item_id or "", url=redact(url or ""), status=status, reason=reason)

    if not isinstance(value, dict):
        return bad("bad_item", value.reason if isinstance(value, NotJson) else "not an object")
    if item_id is None:
        return bad("bad_item", f"id {id_fault}")
    if label is None and row.get("label") is not None:
        return bad("bad_item", f"label {label_fault}")
    if split is not None and split not in SPLITS:
        return bad("bad_item", f"split is none of {', '.join(SPLITS)}")
    if url is None:
        return bad("bad_item" if "long" in url_fault else "bad_url", f"url {url_fault}")
    scheme, reason = _judge(url)
    if scheme not in ("", "http", "https"):
        return bad("blocked_scheme", f"{scheme}: is neither http nor https")
    if reason:
        return bad("bad_url", reason)
    return Item(position=position, id=item_id, url=url, label=label, split=split, own=own_columns(row))


def own_columns(row: dict[str, Any]) -> str | None:
    """Columns of the user's own as canonical JSON: texts, numbers and truth values, within the limits.

    What is longer, nested or one too many is left out; URLs are redacted. These only part results, they decide nothing.
    """
    found: dict[str, Any] = {}
    for name in sorted(row.keys() - _KNOWN)[:MAX_OWN]:
        value = row[name]
        is_known = isinstance(value, str | int | float)
        if is_known and _is_text(name, MAX_OWN_NAME) and _is_text(str(value), MAX_OWN_TEXT):
            found[name] = redact(value) if isinstance(value, str) and "://" in value else value
    return json.dumps(found) if found else None


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


def _judge(url: str) -> tuple[str, str]:
    """Scheme of a URL, and why it cannot be fetched (empty if it can)."""
    if url != url.strip() or any(ord(sign) < 32 or ord(sign) == 127 for sign in url):
        return "", "url has control characters, or blanks around it"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return "", f"url cannot be parsed: {error}"
    if not parts.scheme:
        return "", "url has no scheme"
    return parts.scheme, "" if parts.hostname else "url has no host"
