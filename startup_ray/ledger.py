"""The ledger: one named end state for every item of a manifest, and counts that must add up.

    outcome = Outcome(id="7", url=redact(url), status="http_404", http_status=404, attempts=1)
    counts = count([outcome.status])
    check_law(counts, items=1)          # ok + every other state = items, or DataError

`ledger/*.parquet` holds one row per item, in manifest order within a file.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from startup_ray.errors import DataError, UsageError

STATES = {
    "ok": "fetched, decoded and kept",
    "duplicate": "same body (sha256) as an item that stands earlier; `reason` names its id",
    "http_NNN": "the server's final answer, e.g. http_404",
    "timeout": "no whole answer within the time limits; `reason` says which",
    "dns": "the host's name has no address",
    "refused": "nothing listens at that address and port",
    "reset": "the connection broke before the answer began",
    "tls": "the certificate or the handshake failed",
    "truncated": "the body ended before its announced length",
    "unreadable": "a file or an object that is not there, or may not be read",
    "too_large": "more than `max_bytes`",
    "changed": "the body is not the one whose hash the manifest names",
    "not_image": "the body is no image format that we read",
    "corrupt": "an image that cannot be decoded to its end",
    "too_many_pixels": "more than `max_pixels`",
    "too_small": "an image without pixels",
    "blocked_scheme": "neither http nor https, also after a redirect; or a file or object that is not allowed",
    "blocked_address": "a private, loopback, link-local or metadata address, also after a redirect",
    "too_many_redirects": "more than `max_redirects`",
    "opted_out": "the publisher asks not to use it",
    "bad_url": "no URL that can be fetched",
    "bad_item": "a row of the manifest that is no item, or whose id stands earlier",
    "forgotten": "removed on request, or kept out since; nothing but its id is known any more",
}
"""Every state that an item can end in, with its meaning."""

SUCCESS = ("ok", "duplicate")
"""States that count towards `min_success`."""

FORGOTTEN = "forgotten"

NOT_FAILED = (*SUCCESS, FORGOTTEN)
"""States that are no failure; what was forgotten does not count in `min_success` at all."""

LOST = "lost"
"""No state: stands in the ledger, while an ingest runs, for one that no longer holds. The item is fetched again."""

REPEATED_ID = "repeats the id of row "
"""Begins the reason of a `bad_item` whose id stands earlier; the row is counted from 0."""

FINAL = (*SUCCESS, "bad_item", "bad_url", FORGOTTEN)
"""States that another request cannot change."""

_MAX_NAME = 24
"""Characters of the name of a query parameter; what is longer is no name but a value."""

_SECRET = re.compile(
    r"sig|token|key|secret|cred|pass|pwd|auth|policy|jwt|sess|hmac|bearer|ticket|hdne|hdnt|(?<![a-z])(sid|pw|pin|otp|code)(?![a-z])",
    re.IGNORECASE,
)
_FIELD = re.compile(r"[&;?#]")
_PATH_FIELD = re.compile(r"(?<=[;/])([^;/=]{1,99})=[^;/]*+")
"""A parameter of a path (RFC 3986, 3.3), or a segment that is one, as content networks sign with."""
_OWN_FRAGMENT = re.compile(r"((?:file|s3|gs)://[^#]*)(#(?:group=\d+&row=\d+&)?changed=\d+)\Z")
_USER = re.compile(r"^(?:([^/\\@]*(?::[/\\]+|[/\\]{2,}))[^/\\]*|[^/\\@:]*:[^/\\]*)@")
"""User information, also of a URL without a scheme or with the wrong number of slashes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One row of the ledger."""

    id: str
    url: str
    """As in the manifest, without secrets (see `redact`)."""
    status: str
    reason: str = ""
    http_status: int | None = None
    attempts: int = 0
    bytes: int = 0
    """Length of the body that arrived in memory."""
    sha256: str | None = None
    """Hex digest of the fetched body, whatever it turned out to be."""
    elapsed_s: float = 0.0


def ledger_schema() -> Any:
    """`pyarrow.Schema` of `ledger/*.parquet`."""
    import pyarrow as pa

    strings = [pa.field(name, pa.string()) for name in ("id", "url", "status", "reason")]
    numbers = [("http_status", pa.int32()), ("attempts", pa.int32()), ("bytes", pa.int64())]
    return pa.schema([*strings, *numbers, ("sha256", pa.string()), ("elapsed_s", pa.float64())])


@dataclass(frozen=True)
class Again:
    """Which outcomes do not stand, so that their items are fetched once more. True if there may be any."""

    states: tuple[str, ...] = ()
    """As in the ledger, an `x` in `http_5xx` for any digit; `failures` for every state that a request may change."""

    def takes(self, status: str) -> bool:
        """Whether an item in this state is fetched once more."""
        patterns = [re.escape(state).replace("x", r"\d") for state in self.states if state.startswith("http_")]
        is_failure = "failures" in self.states and status not in FINAL
        return is_failure or status in self.states or any(re.fullmatch(pattern, status) for pattern in patterns)

    def __bool__(self) -> bool:
        return bool(self.states)


NOTHING = Again()
"""Every outcome stands."""


def failures(only: Sequence[str] = ()) -> Again:
    """All failures, or those in the states named.

    Raises:
        UsageError: no such state, or one that another request cannot change.
    """
    can = [state for state in STATES if state not in (*FINAL, "http_NNN")] + [FORGOTTEN]  # which may have been undone
    for state in only:
        if state not in can and not re.fullmatch(r"http_[1-5x][\dx]{2}", state):
            close = difflib.get_close_matches(state, can, 1)
            known = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(can)}, http_404, http_5xx, ..."
            raise UsageError(f"no state that can be fetched again: {state!r}", where="--only", hint=known)
    return Again(tuple(only) or ("failures",))


def is_state(status: str) -> bool:
    """Whether `status` is one of `STATES`, `http_NNN` standing for any three digits."""
    return status in STATES or re.fullmatch(r"http_\d{3}", status) is not None


def count(statuses: Iterable[str]) -> dict[str, int]:
    """Items per state, the most frequent first; counts of parts may simply be added."""
    return dict(sorted(Counter(statuses).items(), key=lambda pair: (-pair[1], pair[0])))


def check_law(counts: Mapping[str, int], items: int) -> None:
    """Raise DataError unless every item has exactly one known state."""
    unknown = [status for status in counts if not is_state(status)]
    if unknown or sum(counts.values()) != items:
        raise DataError(f"the ledger does not close: {dict(counts)} for {items} items")


def redact(url: str) -> str:
    """The URL without user information and fragment, and without any query value if one of the names looks secret.

    Works on the text, not on its parts: a URL that no parser accepts may hold a secret too. A query that is one long
    word is a secret itself, and so is what a parameter hides in an encoded URL of its own. What stays of a fragment
    are the numbers by which a reader of ours names a file's state, or a row in it.
    """
    if own := _OWN_FRAGMENT.match(url):
        return redact(own[1]) + own[2]
    place, mark, fragment = url.partition("#")
    if mark and "://" not in place and "=" not in fragment:
        place = url  # the name of a local file
    place, mark, query = place.partition("?")
    names = [field.partition("=")[0] for field in _FIELD.split(f"{query}&{unquote(query)}")]
    if any(len(name) > _MAX_NAME or _SECRET.search(name) for name in names):
        fields = [field.partition("=") for field in re.split("[&;]", query)]
        query = "&".join(
            f"{name}=REDACTED" if equals and len(name) <= _MAX_NAME else "REDACTED" for name, equals, _ in fields
        )
    if "://" in place:
        place = _PATH_FIELD.sub(lambda field: f"{field[1]}=REDACTED" if _SECRET.search(field[1]) else field[0], place)
    return _USER.sub(r"\1", place) + mark + query


def portless(url: str) -> str:
    """The URL without its port: a sample's server has another each time, and an item is the same behind any."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    return url if port is None else parts._replace(netloc=parts.netloc.rpartition(":")[0]).geturl()
