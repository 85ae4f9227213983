"""Which addresses may be connected to: public ones, and what the user allows by name.

    guard = Guard(networks=options.allow_private)
    connector = aiohttp.TCPConnector(socket_factory=guard.open_socket)

The check stands where a socket is made, on the address that it will be connected to. So it sees what a look at
the URL cannot: every answer of the name server (rebinding included), every redirect, and every way to write an
address (OWASP, Server Side Request Forgery Prevention Cheat Sheet).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

EMBEDDED = (IPv6Network("::/96"), IPv6Network("64:ff9b::/96"))
"""Prefixes with an IPv4 address in the last 32 bits: IPv4-compatible (RFC 4291) and NAT64 (RFC 6052)."""

NEVER = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments (RFC 6890), with the metadata service of Oracle Cloud
    IPv4Network("168.63.129.16/32"),  # a host's own services on Azure, at a public address
    IPv6Network("64:ff9b:1::/48"),  # local NAT64 (RFC 8215): each network puts the IPv4 address where it likes
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated (RFC 7915)
)
"""Refused unless allowed by name, although `ipaddress` calls some of them global."""

BLOCKED = "blocked address"


class BlockedAddressError(OSError):
    """An address that may not be connected to. The errno keeps it one of its kind among several addresses."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{BLOCKED} {address}")


class Guard:
    """What may be connected to.

    Args:
        networks: allowed although not public.
        endpoints: single (address, port) pairs allowed although not public.
    """

    def __init__(
        self, networks: Iterable[IPv4Network | IPv6Network] = (), endpoints: Iterable[tuple[str, int]] = ()
    ) -> None:
        self._networks = tuple(networks)
        self._endpoints = frozenset(endpoints)

    def allows(self, address: str, port: int) -> bool:
        """Whether a connection to this IP address (as text, a zone id may follow) is allowed."""
        if (address, port) in self._endpoints:
            return True
        plain = unwrap(ip_address(address.split("%", 1)[0]))
        if any(plain in network for network in self._networks):
            return True
        if any(plain in network for network in NEVER):
            return False
        is_local = isinstance(plain, IPv6Address) and plain.is_site_local  # deprecated, and global to `ipaddress`
        return plain.is_global and not plain.is_multicast and not is_local

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one result of `getaddrinfo`.

        Raises:
            BlockedAddressError: it leads to where nobody may go.
        """
        family, kind, protocol, _, place = info
        if not self.allows(place[0], place[1]):
            raise BlockedAddressError(place[0])
        return socket.socket(family, kind, protocol)


def unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv4-mapped, IPv4-compatible, 6to4, Teredo or NAT64 one; any other as it is."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]  # the client behind the relay (RFC 4380, section 4)
    if inner is None and any(address in network for network in EMBEDDED):
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner if inner is not None else address
