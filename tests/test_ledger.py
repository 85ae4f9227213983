from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startup_ray.errors import DataError
from startup_ray.ledger import STATES, check_law, count, is_state, ledger_schema, redact

states = st.sampled_from([*(name for name in STATES if name != "http_NNN"), "http_404", "http_503"])


@given(st.lists(states), st.integers(0, 40))
def test_the_law(statuses: list[str], cut: int) -> None:
    """Counts of parts add up to the counts of all, and these to the items."""
    whole = count(statuses)
    first, second = count(statuses[:cut]), count(statuses[cut:])
    assert whole == {name: first.get(name, 0) + second.get(name, 0) for name in whole}
    check_law(whole, len(statuses))
    with pytest.raises(DataError):
        check_law(whole, len(statuses) + 1)


def test_a_state_that_nobody_knows_breaks_the_law() -> None:
    with pytest.raises(DataError):
        check_law({"ok": 1, "odd": 1}, 2)


def test_the_most_frequent_state_comes_first() -> None:
    assert list(count(["tls", "ok", "dns", "ok"])) == ["ok", "dns", "tls"]


@pytest.mark.parametrize("status", ["http_40", "http_4040", "HTTP_404", "", "http_abc"])
def test_no_state(status: str) -> None:
    assert not is_state(status)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://user:pass@host:81/a?b=1#c", "http://host:81/a?b=1"),
        ("user:pw@host/a", "host/a"),
        ("http:/user:pw@host/a", "http:/host/a"),
        ("ingest.manifest=http://user:pw@host/m.json", "ingest.manifest=http://host/m.json"),
        ("http://[user:pw@broken?token=1", "http://broken?token=REDACTED"),
        ("https://h/@name/a@2x.png", "https://h/@name/a@2x.png"),
        ("https://h/a?X-Amz-Signature=abc&x=1", "https://h/a?X-Amz-Signature=REDACTED&x=REDACTED"),
        ("https://h/a?Key-Pair-Id=K&Policy=P&n=%20", "https://h/a?Key-Pair-Id=REDACTED&Policy=REDACTED&n=REDACTED"),
        ("https://h/a?x=1;token=abc", "https://h/a?x=REDACTED&token=REDACTED"),
        ("https://h/a?%74oken=abc", "https://h/a?%74oken=REDACTED"),
        ("https://h/a?url=https%3A%2F%2Fi%2Fa%3Fb%3D1%26sig%3Dabc", "https://h/a?url=REDACTED"),
        ("https://h/a?pwd=1&jwt=2&sid=3&hdnea=4", "https://h/a?pwd=REDACTED&jwt=REDACTED&sid=REDACTED&hdnea=REDACTED"),
        ("https://h/a?eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "https://h/a?REDACTED"),
        ("https://h/a?id=3&QUJDREVGR0hJSktMTU5PUFFSU1RVVg==", "https://h/a?id=REDACTED&REDACTED"),
        ("https://h/a;jsessionid=abc/b;v=1?x=1", "https://h/a;jsessionid=REDACTED/b;v=1?x=1"),
        ("https://h/hdnea=exp=1~hmac=abc/a.jpg", "https://h/hdnea=REDACTED/a.jpg"),
        ("/data/token=3/m.json", "/data/token=3/m.json"),
        ("https://h/a#access_token=abc", "https://h/a"),
        ("h/a#access_token=abc", "h/a"),
        ("https://h/a?b=%2F", "https://h/a?b=%2F"),
        ("https://h/a?id=3&w=200&side=left&v", "https://h/a?id=3&w=200&side=left&v"),
        ("https://h/a?1700000000", "https://h/a?1700000000"),
        ("file:///a.jpg#changed=12", "file:///a.jpg#changed=12"),
        ("s3://me:pw@b/a.parquet#group=1&row=2&changed=3", "s3://b/a.parquet#group=1&row=2&changed=3"),
        ("https://h/a#changed=12", "https://h/a"),
        ("file:///a.jpg#changed=12&token=abc", "file:///a.jpg"),
        ("/data/set #1/x@y/m.json", "/data/set #1/x@y/m.json"),
        ("sample:digits", "sample:digits"),
    ],
)
def test_redact(url: str, expected: str) -> None:
    assert redact(url) == expected


@pytest.mark.parametrize(
    "name", ["pwd", "jwt", "sid", "hdnea", "PHPSESSID", "api_key", "sig", "se-ticket", "x_otp", "code"]
)
def test_each_secret_name_alone(name: str) -> None:
    assert redact(f"https://h/a?id=3&{name}=hunter2") == f"https://h/a?id=REDACTED&{name}=REDACTED"


@given(st.text())
def test_redact_never_fails_and_keeps_no_password(text: str) -> None:
    redact(text)
    assert "hunter2" not in redact(f"https://user:hunter2@host/?token=hunter2&a={text}#")


@pytest.mark.parametrize("piece", [":", "/", "a:", "//a", "@/", "?a", "&a=", "%3f", "://", "http://h/a=", "http://h/;"])
def test_redact_takes_linear_time(piece: str) -> None:
    # The square of it would be minutes, and the time limit of the tests.
    assert len(redact(piece * 200_000)) < 10_000_000


def test_columns() -> None:
    assert ledger_schema().names == [
        "id", "url", "status", "reason", "http_status", "attempts", "bytes", "sha256", "elapsed_s",
    ]  # fmt: skip
