"""Which limits a connection gets. What they do is in `test_storage_s3.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from startup_ray.errors import StorageError
from startup_ray.object_store import CONNECT_S, GCS_LIMIT_S, SILENCE_S, connect
from startup_ray.storage import open_folder


def options(uri: str) -> dict[str, Any]:
    found: dict[str, Any] = connect(uri)[0].__reduce__()[1][0]
    return found


def test_limits_are_ours_and_the_rest_is_the_locations() -> None:
    found = options("s3://b?region=x&scheme=http&endpoint_override=h:1&allow_bucket_creation=true&tls_ca_file_path=/ca")
    assert (found["connect_timeout"], found["request_timeout"]) == (CONNECT_S, SILENCE_S)
    assert (found["region"], found["scheme"], found["endpoint_override"]) == ("x", "http", "h:1")
    assert found["allow_bucket_creation"]
    assert found["tls_ca_file_path"] == "/ca"


def test_an_option_that_makes_empty_files_of_failed_writes_is_without_effect() -> None:
    assert not options("s3://b?region=x&allow_delayed_open=true")["allow_delayed_open"]


def test_what_only_a_location_can_say_is_not_lost_for_limits() -> None:
    from pyarrow.fs import FileSystem

    uri = "s3://b?region=x&tls_verify_certificates=false"
    assert connect(uri)[0] == FileSystem.from_uri(uri)[0]


@pytest.mark.parametrize(("query", "seconds"), [("", GCS_LIMIT_S), ("?retry_limit_seconds=5", 5)])
def test_google_tries_again_for_a_minute_or_as_long_as_asked(query: str, seconds: int) -> None:
    assert options(f"gs://anonymous@b{query}")["retry_time_limit"] == timedelta(seconds=seconds)


def test_a_key_in_a_location_is_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError, match="secret_key") as caught:
        open_folder("s3://b/a?region=x&secret_key=hush")
    assert "hush" not in str(caught.value)
    assert caught.value.where == "s3://b/a"
