from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from startup_ray.job import ImageOptions, IngestOptions


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"store": "jpeg", "channels": 4}, "store: png"),
        ({"store": "raw", "resize": "fit"}, "store: png"),
        ({"store": "raw", "resize": "no"}, "store: png"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_way_out(options: dict[str, Any], way_out: str) -> None:
    with pytest.raises(ValidationError, match=way_out):
        ImageOptions.model_validate(options)


def test_what_is_to_be_blurred_is_not_kept_as_it_was_fetched() -> None:
    columns = {"manifest": "m.csv", "columns": {"blur": "faces"}}
    with pytest.raises(ValidationError, match="store: png"):
        IngestOptions.model_validate(columns | {"image": {"store": "original"}})
    assert IngestOptions.model_validate(columns | {"image": {"store": "raw"}}).columns.blur == "faces"


def test_shape() -> None:
    assert ImageOptions(size=(8, 6), channels=4).shape == (8, 6, 4)
    assert ImageOptions(size=(8, 6), channels=1, resize="fit").shape == (0, 0, 1)


def test_a_bare_no_of_yaml_is_a_way_to_resize() -> None:
    values = yaml.safe_load("{resize: no}")
    assert values == {"resize": False}
    assert ImageOptions.model_validate(values).resize == "no"
    with pytest.raises(ValidationError, match="'fit' or 'no'"):
        ImageOptions.model_validate({"resize": True})


def test_options_count_for_keys_as_they_always_did() -> None:
    """The name of every dataset and run is made from this."""
    assert ImageOptions().model_dump(mode="json") == {
        "size": [28, 28],
        "channels": 3,
        "resize": "center_crop",
        "store": "png",
        "quality": 95,
    }
