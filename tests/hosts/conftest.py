"""These tests are skipped where a process cannot make hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.cluster import Cluster
from tests.hosts.net import why_not


@pytest.fixture(scope="session", autouse=True)
def hosts_can_be_made() -> None:
    if why_not():
        pytest.skip(why_not())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as found:
        yield found
