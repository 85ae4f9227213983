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
        ("http://user:pass@host:81/a?b=1#c", "http://host:81/a?b=1#c"),
        ("https://h/a?X-Amz-Signature=abc&x=1", "https://h/a?X-Amz-Signature=REDACTED&x=1"),
        ("https://h/a?Key-Pair-Id=K&Policy=P&n=%20", "https://h/a?Key-Pair-Id=REDACTED&Policy=REDACTED&n=+"),
        ("https://h/a?b=%2F", "https://h/a?b=%2F"),
        ("http://[broken?token=1", "http://[broken"),
    ],
)
def test_redact(url: str, expected: str) -> None:
    assert redact(url) == expected


@given(st.text())
def test_redact_never_fails_and_keeps_no_password(text: str) -> None:
    redact(text)
    assert "hunter2" not in redact(f"https://user:hunter2@host/?token=hunter2&a={text}#")


def test_columns() -> None:
    assert ledger_schema().names == [
        "id", "url", "status", "reason", "http_status", "attempts", "bytes", "sha256", "elapsed_s",
    ]  # fmt: skip
