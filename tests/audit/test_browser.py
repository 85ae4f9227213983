"""The page in a real browser: it asks no network, says no error, fits a phone, and axe finds nothing against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startup_ray.audit import audit
from startup_ray.storage import Folder
from tests.audit.made import defective, judge
from tests.browser import MARKS, looked_at, opened

EVIL = ("</style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & 'x'" * 20)
pytestmark = MARKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from opened()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = Folder(str(tmp_path_factory.mktemp("storage")))
    dataset = defective(storage / "datasets" / "made", EVIL)
    judge(storage, dataset)
    return Path(audit(dataset, storage.path("audit.html"))["audit"]).as_uri()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1_280), ("dark", 1_280), ("light", 390)])
def test_nothing_is_wrong_with_the_page(browser: Any, address: str, scheme: str, width: int) -> None:
    with looked_at(browser, address, scheme=scheme, width=width) as page:
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
