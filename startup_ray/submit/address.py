"""Where a cluster's Jobs API is, and the token that it wants.

    cluster = find_cluster("https://ray.example.org", env=os.environ)
    cluster.headers()           # {"Authorization": "Bearer ..."}

A token comes from where Ray itself looks for it, is sent in a header alone, and never in clear over a network, as Ray
would do.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from startup_ray.errors import UsageError

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that may hold the address, the first first."""
TOKEN, TOKEN_PATH, TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"
WHERE = "--address"
_TUNNEL = "ssh -N -L 8265:localhost:8265 HEAD, then --address http://localhost:8265"


@dataclass(frozen=True)
class Cluster:
    """An address, and a token that no `repr` shows."""

    url: str
    """scheme://host[:port][/path], without a slash at the end."""
    token: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def is_loopback(self) -> bool:
        return _is_loopback(urlsplit(self.url).hostname or "")


def find_cluster(address: str | None, *, env: Mapping[str, str], is_insecure: bool = False) -> Cluster:
    """The cluster at an address, else at the one that the environment names.

    Args:
        is_insecure: whether a token may go over plain http to another machine.

    Raises:
        UsageError: there is no address, it is none of http, its token cannot be read or would be sent in clear.
    """
    url = address or next((env[name] for name in ADDRESSES if "://" in env.get(name, "")), "")
    if not url:
        raise UsageError("which cluster?", where=WHERE, hint=f"--address http://HOST:8265, or {ADDRESSES[0]}")
    cluster = Cluster(_checked(url), find_token(env))
    if cluster.token and cluster.url.startswith("http:") and not cluster.is_loopback and not is_insecure:
        raise UsageError(
            "the token would be sent in clear over the network",
            where=cluster.url,
            hint=f"{_TUNNEL}; or https; or --insecure where nobody listens; RAY_AUTH_MODE=disabled sends none",
        )
    return cluster


def _checked(url: str) -> str:
    parts = urlsplit(url)
    try:
        is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if parts.scheme not in ("http", "https") or not is_whole:
        raise UsageError("not an address of a Jobs API", where=url, hint=f"it is like http://HOST:8265; {_TUNNEL}")
    if parts.username or parts.password or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.hostname}"
        raise UsageError("an address has no password and no query", where=shown, hint=f"set {TOKEN_PATH} for a token")
    return url.rstrip("/")


def find_token(env: Mapping[str, str]) -> str:
    """Where Ray looks for it: a variable, a file that a variable names, the file in the home. Empty: there is none.

    Raises:
        UsageError: the file that is named cannot be read.
    """
    if env.get("RAY_AUTH_MODE", "token") != "token":
        return ""
    if token := env.get(TOKEN, "").strip():
        return token
    named = env.get(TOKEN_PATH, "")
    path = Path(named or os.path.join(env.get("HOME", "/"), TOKEN_FILE.removeprefix("~/"))).expanduser()
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if not named:
            return ""
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"cannot read the token: {reason}", where=f"{TOKEN_PATH}={named}") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
