from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import requests
from PIL import Image

from startup_ray.errors import ManifestError
from startup_ray.ingest.samples import FAULTS, serve
from startup_ray.items import BadRow, Item
from startup_ray.manifest import open_manifest


def test_the_digits_are_served_like_any_other_images() -> None:
    with serve("sample:digits") as sample, open_manifest(sample.manifest) as manifest:
        assert sample.manifest == "http://127.0.0.1:{1}/manifest.json".format(*sample.endpoint)
        rows = list(manifest.rows())
        assert [row.id for row in rows[-len(FAULTS) :]] == list(FAULTS)
        assert len(rows) == 1_797 + len(FAULTS)
        assert [row.status for row in rows if isinstance(row, BadRow)] == ["blocked_scheme"]
        first = rows[0]
        assert isinstance(first, Item)
        assert first.label == "0"
        pixels = np.asarray(Image.open(io.BytesIO(requests.get(first.url, timeout=5).content)))
        assert pixels.shape == (28, 28)
        assert pixels.dtype == np.uint8
        assert pixels.max() > 200
    with pytest.raises(requests.ConnectionError):
        requests.get(sample.manifest, timeout=5)


def test_the_photographs_are_cut_into_crops_without_faults() -> None:
    with serve("sample:photos") as sample, open_manifest(sample.manifest) as manifest:
        rows = [row for row in manifest.rows() if isinstance(row, Item)]
        assert len(rows) == len({row.id for row in rows}) == 2_000
        assert Counter(row.label for row in rows) == {"china": 1_000, "flower": 1_000}
        bodies = [requests.get(row.url, timeout=5).content for row in (rows[0], rows[7], rows[-1])]
        assert len(set(bodies)) == 3
        for body in bodies:
            assert np.asarray(Image.open(io.BytesIO(body))).shape == (64, 64, 3)


def test_no_such_sample() -> None:
    with pytest.raises(ManifestError, match="no such sample"), serve("sample:cats"):
        pass
