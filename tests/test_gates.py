from __future__ import annotations

from typing import Any

import pytest

from startup_ray.errors import UsageError
from startup_ray.gates import check_gates, parse_gate

DOCUMENT: dict[str, Any] = {
    "metrics": {"f1": 0.9, "accuracy": 0.95, "log_loss": 0.2, "mcc": None},
    "intervals": {"accuracy": [0.93, 0.97]},
    "per_class": [
        {"class": "cat", "recall": 0.5, "support": 2},
        {"class": "a >= b [x]", "recall": 1.0, "support": 1},
        {"class": "absent", "recall": 0.0, "support": 0},
    ],
}


@pytest.mark.parametrize(
    ("text", "value", "passed"),
    [
        ("f1 >= 0.90", 0.9, True),
        ("f1>0.9", 0.9, False),
        (" log_loss  <=  2e-1 ", 0.2, True),
        ("log_loss < -1", 0.2, False),
        ("accuracy.low >= .94", 0.93, False),
        ("accuracy.high > 0.96", 0.97, True),
        ("recall[cat] >= 0.5", 0.5, True),
        ("recall[a >= b [x]] > 0.9", 1.0, True),
        ("recall[dog] > 0", None, False),
        ("recall[absent] < 0.5", None, False),
        ("mcc > 0", None, False),
        ("f1.low > 0", None, False),
    ],
)
def test_a_gate_is_read_and_checked(text: str, value: float | None, passed: bool) -> None:
    assert check_gates([parse_gate(text)], DOCUMENT) == [{"gate": text, "value": value, "passed": passed}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("f1", "NAME >= NUMBER"),
        ("f1 == 0.9", "NAME >= NUMBER"),
        ("f1 >= good", "NAME >= NUMBER"),
        ("f1 >= 1e999", "NAME >= NUMBER"),
        ("0.9 <= f1", "NAME >= NUMBER"),
        ("acuracy > 0.9", "did you mean 'accuracy'?"),
        ("__import__('os').system('id') > 0", "NAME >= NUMBER"),
        ("accuracy.lo > 0.9", "did you mean 'low'?"),
        ("log_loss.low < 1", "ask for log_loss itself"),
        ("recal[cat] > 0", "did you mean 'recall'?"),
        ("accuracy[cat] > 0", "known: precision, recall, f1"),
        ("recall[cst] > 0", "did you mean 'cat'?"),
    ],
)
def test_a_bad_gate_tells_the_way_out(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gate(text, classes=["cat", "dog"])
    assert told in str(caught.value)
    assert text in caught.value.where or repr(text) in caught.value.where
