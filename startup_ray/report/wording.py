"""Numbers and names as people read them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from startup_ray.ledger import redact

_URL = re.compile(r"https?://[^\s'\"<>]+")
_WORDS = {
    "f1": "F1",
    "mcc": "MCC",
    "ece": "ECE",
    "roc_auc": "ROC-AUC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "fid": "FID",
    "kid": "KID",
    "cas": "CAS",
}


def without_secrets(text: str) -> str:
    """The text with every URL in it redacted (see `ledger.redact`)."""
    return _URL.sub(lambda found: redact(found[0]), text)


def wording(metric: str) -> str:
    """f1_macro -> F1 macro."""
    words = [_WORDS.get(word, word) for word in _WORDS.get(metric, metric).split("_")]
    return " ".join(words)


def percent(value: float | None) -> str:
    """0.9833 -> 98.3%; never 100% for less than all."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}"
    return "99.9%" if text == "100.0" and value < 1 else f"{text}%"


def points(value: float) -> str:
    """A difference of shares: 0.0083 -> +0.8."""
    return f"{100 * value:+.1f}"


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def count(value: float | None) -> str:
    """12345.6 -> 12,346."""
    return "–" if value is None else f"{value:,.0f}"


def distance(value: float | None) -> str:
    """4.0435 -> 4.04 and 0.01234 -> 0.0123: features have any scale."""
    if value is None:
        return "–"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def span(ends: Sequence[float] | None) -> str:
    """An interval in percent."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else ""


def score(value: float | None) -> str:
    """Of any scale: 0.98322 -> 0.9832 and 43.217 -> 43.22; a dash for what is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.001:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"


def metric_name(metric: str) -> str:
    """val/f1_macro -> val F1 macro."""
    split, _, name = metric.rpartition("/")
    return f"{split} {wording(name)}".strip()


def setting(value: Any) -> str:
    """A value of a job: 0.010816063 -> 0.01082, [32, 64] and null as in its file."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shortened(text: str, most: int) -> str:
    """At most so many letters, at least 3."""
    return text if len(text) <= max(most, 3) else f"{text[: max(most, 3) - 1]}…"


def key_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys by as many of their last parts as tell them apart."""
    known = list(keys)
    return {key: _ending(key, [other for other in known if other != key]) for key in known}


def _ending(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    endings = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
    return next((end for end in endings if not any(f".{other}".endswith(f".{end}") for other in others)), key)


def listed(names: Sequence[Any], most: int = 8) -> str:
    """1, 2 and 3."""
    told = [str(name) for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(told)} and {len(names) - most} more"
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def finite(value: Any) -> float | None:
    """A number that is one; None for all else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
