"""What a body becomes beside its pixels: a hash that the manifest names is one that the body must have."""

from __future__ import annotations

import hashlib

import pytest

from startup_ray.ingest.exchange import Fetched
from startup_ray.ingest.finish import finish
from startup_ray.items import HASHES, Item
from startup_ray.job import IngestOptions
from tests.image_server import image

OPTIONS = IngestOptions(manifest="m.csv")


def finished(body: bytes | None, hashes: str | None) -> tuple[str, str, bool]:
    item = Item(position=0, id="a", url="http://e.com/a", hashes=hashes)
    outcome, row = finish(item, Fetched(status="ok" if body else "timeout", body=body), OPTIONS)
    return outcome.status, outcome.reason, row is not None


@pytest.mark.parametrize("kind", HASHES)
def test_a_body_without_the_hash_of_the_manifest_is_not_kept(kind: str) -> None:
    body, other = image(1), image(2)
    named = f"{kind}:{hashlib.new(kind, body, usedforsecurity=False).hexdigest()}"
    assert finished(body, named) == finished(body, None) == ("ok", "", True)
    assert finished(other, named) == ("changed", f"its {kind} is not that of the manifest", False)
    assert finished(other, f"sha256:{hashlib.sha256(other).hexdigest()} {named}")[0] == "changed"
    assert finished(b"<html>", named)[0] == "changed"
    assert finished(None, named)[0] == "timeout"
