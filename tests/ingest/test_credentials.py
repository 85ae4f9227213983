from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from yarl import URL

from startup_ray.errors import UsageError
from startup_ray.ingest.credentials import NONE, VARIABLE, Headers, read_headers

SECRET = "hunter2"


def read(value: Any) -> Headers:
    return read_headers({VARIABLE: value if isinstance(value, str) else json.dumps(value)})


def test_each_origin_has_its_own() -> None:
    headers = read(
        {
            "https://A.example": {"Authorization": f"Bearer {SECRET}", "X-Team": "cats"},
            "http://a.example:8080/": {"Authorization": "other"},
            "https://[2606:4700::1]:8443": {"Cookie": "a=b; c=d"},
        }
    )
    assert headers.of(URL("https://a.example/x?y=z")) == {"Authorization": f"Bearer {SECRET}", "X-Team": "cats"}
    assert headers.of(URL("https://a.example:443/")) == headers.of(URL("https://user@A.EXAMPLE/"))
    assert headers.of(URL("http://a.example:8080/x")) == {"Authorization": "other"}
    assert headers.of(URL("https://[2606:4700::1]:8443/")) == {"Cookie": "a=b; c=d"}


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "https://a.example:444/",
        "https://a.example./",
        "https://b.a.example/",
        "https://a.example.b/",
        "https://example/",
        "https://a.example@b.example/",
    ],
)
def test_any_other_origin_gets_nothing(url: str) -> None:
    assert read({"https://a.example": {"Authorization": SECRET}}).of(URL(url)) == {}


@pytest.mark.parametrize("value", ["", "  ", "{}"])
def test_none(value: str) -> None:
    assert read(value).of(URL("https://a.example/")) == {}
    assert read_headers({}) is NONE


@pytest.mark.parametrize(
    "value",
    [
        f'{{"https://a.example": {{"Authorization": "{SECRET}"}}',
        f'"{SECRET}"',
        "[" * 100_000,
        [SECRET],
        {"https://a.example": SECRET},
        {"https://a.example": {"Authorization": [SECRET]}},
        {"https://a.example": {"Authorization": f"{SECRET}\r\nHost: b"}},
        {"https://a.example": {"Authorization": f"{SECRET}é"}},
        {"https://a.example": {"Authorization": ""}},
        {"https://a.example": {f"{SECRET} x": "y"}},
        {"https://a.example": {"": SECRET}},
        {"https://a.example": {"Host": SECRET}},
        {"https://a.example": {"content-length": SECRET}},
        {f"https://user:{SECRET}@a.example": {}},
        {f"https://a.example/?{SECRET}": {}},
        {f"https://a.example/{SECRET}": {}},
        {f"https://a.example/#{SECRET}": {}},
        {f"ftp://{SECRET}": {}},
        {f"{SECRET}": {}},
        {f"//{SECRET}": {}},
        {f"https://[{SECRET}": {}},
        {f"https://a.example:{SECRET}": {}},
    ],
)
def test_what_cannot_be_read_is_told_without_values(value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read(value)
    assert caught.value.where == VARIABLE
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__dict__)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_it_shows_no_value_and_pickles() -> None:
    headers = read({"https://a.example": {"Authorization": SECRET}})
    assert SECRET not in f"{headers!r} {headers}"
    assert pickle.loads(pickle.dumps(headers)) == headers  # noqa: S301
