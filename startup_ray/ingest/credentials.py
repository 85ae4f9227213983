"""Headers for single origins, such as tokens, from the environment alone.

    STARTUP_RAY_HEADERS='{"https://images.example.com": {"Authorization": "Bearer ..."}}'

    headers = read_headers(os.environ)
    headers.of(URL("https://images.example.com/cat.jpg"))     # {"Authorization": "Bearer ..."}
    headers.of(URL("https://images.example.com:8443/"))       # {}: another origin

They are chosen anew for each request of a chain of redirects, so that no other origin ever sees them. Nothing here
shows a value: neither an error nor `repr`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from startup_ray.errors import UsageError

VARIABLE = "STARTUP_RAY_HEADERS"
_HINT = """write JSON: {"https://images.example.com": {"Authorization": "Bearer ..."}}"""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_OURS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "accept-encoding", "range"}
)
"""Headers that belong to the connection, or to the way in which answers are read."""

Origin = tuple[str, str, int | None]


@dataclass(frozen=True)
class Headers:
    """Headers of each origin."""

    by_origin: Mapping[Origin, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def of(self, url: URL) -> Mapping[str, str]:
        """What is sent to the origin of an absolute URL, and to no other."""
        return self.by_origin.get(_origin(url), {}) if self.by_origin else {}


NONE = Headers()


def read_headers(environ: Mapping[str, str]) -> Headers:
    """The headers that STARTUP_RAY_HEADERS names, none if it is not set.

    Raises:
        UsageError: it cannot be read; told without any of its values.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return NONE
    try:
        found = json.loads(text)
    except ValueError as error:
        place = f"line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number"
        raise _wrong(f"not JSON at {place}") from None  # the error holds the text
    except RecursionError:
        raise _wrong("not JSON of this form") from None
    if not isinstance(found, dict):
        raise _wrong("not an object of origins")
    return Headers({_read_origin(origin): _read_headers(origin, headers) for origin, headers in found.items()})


def _read_origin(text: str) -> Origin:
    try:
        url = URL(text)
        bare = url.with_path("/") if url.path in ("", "/") else None
        if bare is not None and url.scheme in ("http", "https") and url.host and url == bare and url.user is None:
            return _origin(url)
    except ValueError:
        pass
    # What stands there may be a URL with a secret in it.
    raise _wrong("an origin is scheme://host or scheme://host:port, http or https, and nothing else")


def _read_headers(origin: str, headers: Any) -> dict[str, str]:
    if not isinstance(headers, dict):
        raise _wrong(f"the headers of {origin} are not an object")
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise _wrong(f"the headers of {origin} have a name that no header can have")
        if name.lower() in _OURS:
            raise _wrong(f"the header {name} of {origin} cannot be set")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise _wrong(f"the header {name} of {origin} is not a text of printable ASCII")
    return dict(headers)


def _origin(url: URL) -> Origin:
    return url.scheme, url.raw_host or "", url.port


def _wrong(message: str) -> UsageError:
    return UsageError(message, where=VARIABLE, hint=_HINT)
