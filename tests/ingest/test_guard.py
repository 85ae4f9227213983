from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Network, IPv6Network

import pytest

from startup_ray.ingest.guard import NEVER, BlockedAddressError, Guard

PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.9.9",
    "192.0.2.1", "192.168.1.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a00:1", "fc00::1", "fd12::1",
    "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "192.0.0.9", "192.0.0.192", "::ffff:192.0.0.192", "168.63.129.16", "64:ff9b::a83f:8110", "2002:a83f:8110::1",
    "64:ff9b:1:a9fe:a9:fe00:808:808", "64:ff9b:1::808:808", "::ffff:0:a9fe:a9fe", "::ffff:0:808:808",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "168.63.129.17",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_in_every_notation(address: str) -> None:
    assert not Guard().allows(address, 80)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert Guard().allows(address, 443)


def test_what_the_user_allows_and_no_more() -> None:
    guard = Guard([IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")])
    assert guard.allows("10.2.3.4", 80)
    assert guard.allows("::ffff:10.2.3.4", 80)
    assert guard.allows("fd00::7", 80)
    assert not guard.allows("127.0.0.1", 80)


@pytest.mark.parametrize("network", NEVER)
def test_what_is_never_allowed_may_still_be_allowed_by_name(network: IPv4Network | IPv6Network) -> None:
    address = str(network[-1])
    assert not Guard().allows(address, 80)
    assert Guard([network]).allows(address, 80)


def test_an_endpoint_is_one_address_and_one_port() -> None:
    guard = Guard(endpoints=[("127.0.0.1", 8080)])
    assert guard.allows("127.0.0.1", 8080)
    assert not guard.allows("127.0.0.1", 8081)
    assert not guard.allows("127.0.0.2", 8080)
    assert not guard.allows("::ffff:127.0.0.1", 8080)


def test_no_socket_for_a_blocked_address() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))
    with pytest.raises(BlockedAddressError) as caught:
        Guard().open_socket(info)
    assert caught.value.errno == errno.EACCES
    with Guard([IPv4Network("127.0.0.0/8")]).open_socket(info) as opened:
        assert opened.family == socket.AF_INET
