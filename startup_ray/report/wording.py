"""Numbers and names as people read them."""

from __future__ import annotations

from collections.abc import Sequence

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
