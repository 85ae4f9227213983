"""What went wrong with a request, by its state in the ledger, and whether another attempt may end better."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from startup_ray.ingest.guard import BLOCKED

RETRY_AFTER_CAP_S = 60.0
"""A server may ask for more patience, but gets no more."""


class Fault(NamedTuple):
    """What went wrong: a state of the ledger, and a reason that never holds a URL, which may hold secrets."""

    status: str
    reason: str


# A 500 is most often about the one thing that was asked for: a run of dead images at a host that is well.
_ILL = frozenset({"timeout", "refused", "reset", "tls", "dns", "http_429", "http_502", "http_503", "http_504"})
_AGAIN = frozenset({"http_408", "http_425", "http_429", "timeout", "refused", "reset", "truncated"})


def is_transient(status: str, error: Exception | None = None) -> bool:
    """Whether another attempt may end better (RFC 9110, section 15; 425 in RFC 8470, 429 in RFC 6585).

    Of names without an address only those that the name server asks to look up again (EAI_AGAIN, RFC 3493, 6.1).
    """
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return error.os_error.errno == socket.EAI_AGAIN
    return status in _AGAIN or status.startswith("http_5")


def is_host_ill(status: str) -> bool:
    """Whether a state says something of the host itself, and not of the one thing that was asked of it."""
    return status in _ILL


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """Seconds that `Retry-After` asks for, in [0, RETRY_AFTER_CAP_S]; a number or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_CAP_S)
    try:
        moment = parsedate_to_datetime(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(aware.timestamp() - now, 0.0), RETRY_AFTER_CAP_S)
    except (ValueError, OverflowError):  # no date, or one that lies beyond all calendars
        return 0.0


def classify(error: Exception) -> Fault:
    """A fault of a request, by the error that it raised."""
    if isinstance(error, TimeoutError):
        return Fault("timeout", _ran_out(error))
    if isinstance(error, aiohttp.NonHttpUrlClientError):
        return Fault("blocked_scheme", f"{str(error).partition(':')[0][:20]}: is neither http nor https")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Fault("dns", told(error.os_error))
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError, ssl.CertificateError)):
        return Fault("tls", told(error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return _of_connecting(error.os_error)
    if any(isinstance(cause, ContentEncodingError) for cause in _causes(error)):
        return Fault("corrupt", told(error))
    if isinstance(error, aiohttp.ClientPayloadError):
        return Fault("truncated", told(error))
    if isinstance(error, ValueError):  # yarl's and aiohttp's InvalidURL, idna's UnicodeError
        return Fault("bad_url", told(error))
    return Fault("reset", told(error))


def told(error: BaseException) -> str:
    """The first line of what an error says, if it is known to name no URL; else the error's name."""
    text: str | None = None
    if isinstance(error, aiohttp.ClientResponseError):  # its text ends in the URL
        text = error.message
    elif isinstance(error, aiohttp.InvalidURL):  # its text begins with the URL
        text = error.description
    elif isinstance(error, (aiohttp.ClientError, OSError, ValueError)):
        text = getattr(error, "strerror", None) or str(error)
    return (text or type(error).__name__).split("\n", 1)[0]


def _ran_out(error: TimeoutError) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "not connected within connect_timeout_s"
    if isinstance(error, aiohttp.SocketTimeoutError):
        return "silent for read_timeout_s"
    return "no whole answer within timeout_s"


def _of_connecting(error: OSError) -> Fault:
    if BLOCKED in str(error):  # in the text, because it may be one of several addresses that were tried
        return Fault("blocked_address", told(error))
    if error.errno == errno.ETIMEDOUT:
        return Fault("timeout", told(error))
    return Fault("reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else "refused", told(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
