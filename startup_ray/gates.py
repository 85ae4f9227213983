"""Gates: what an evaluation must show, or the job fails with exit code 6.

    gate = parse_gate("f1 >= 0.90")                     # or recall[CLASS] > 0.8, accuracy.low >= 0.95
    check_gates([gate], document)                       # [{'gate', 'value', 'passed'}]

A grammar of its own, NAME OP NUMBER; nothing of a job file is ever evaluated as code.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from startup_ray.errors import UsageError
from startup_ray.metrics import AVERAGED, NAMES, RANKED

GENERATIVE = (
    *("fid", "kid", "precision", "recall", "density", "coverage", "entropy", "rarest", "missing", "cas"),
    *("nearest_ratio", "nearest_ratio_p5", "copies"),
)
"""Every metric of an evaluation of a GAN."""
NO_INTERVAL = ("log_loss", "brier", "ece", *RANKED)
_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_GATE = re.compile(r"\s*(?P<name>.+?)\s*(?P<op>>=|<=|>|<)\s*(?P<number>[-+.\deE]+)\s*")
_NAME = re.compile(r"(?P<metric>[A-Za-z_]\w*)(?:\[(?P<label>.+)\]|\.(?P<end>\w+))?")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A demand on an evaluation."""

    text: str
    """As the job file writes it."""
    metric: str
    label: str | None
    """The class, in `recall[CLASS]`."""
    end: str | None
    """`low` or `high`: an end of the interval instead of the value itself."""
    op: str
    threshold: float


def parse_gate(text: str, classes: Sequence[str] | None = None) -> Gate:
    """Read NAME OP NUMBER: OP is one of >= > <= <, NAME a metric, `recall[CLASS]` or `accuracy.low` / `.high`.

    Args:
        text: the gate.
        classes: what CLASS may be; not checked if None.

    Raises:
        UsageError: with what was probably meant.
    """
    parts = _GATE.fullmatch(text)
    name = _NAME.fullmatch(parts["name"]) if parts else None
    threshold = _number(parts["number"]) if parts else None
    if parts is None or name is None or threshold is None:
        hint = "NAME >= NUMBER (or >, <=, <), for example f1 >= 0.90, recall[CLASS] > 0.8, accuracy.low >= 0.95"
        raise UsageError("cannot read this gate", where=f"gate {text!r}", hint=hint)
    metric, label, end = name["metric"], name["label"], name["end"]
    _require(metric, (*AVERAGED, *RANKED) if label is not None else (*NAMES, *GENERATIVE), "metric", text)
    if label is not None and classes is not None:
        _require(label, classes, "class", text)
    if end is not None:
        _require(end, ("low", "high"), "end of an interval", text)
        if metric in NO_INTERVAL or metric not in NAMES:
            raise UsageError(f"{metric} has no interval", where=f"gate {text!r}", hint=f"ask for {metric} itself")
    return Gate(text=text, metric=metric, label=label, end=end, op=parts["op"], threshold=threshold)


def check_gates(gates: Sequence[Gate], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`[{"gate", "value", "passed"}]` for an evaluation's document; a metric without a value does not pass."""
    found = []
    for gate in gates:
        value = _value(gate, document)
        passed = value is not None and bool(_OPERATORS[gate.op](value, gate.threshold))
        found.append({"gate": gate.text, "value": value, "passed": passed})
    return found


def _value(gate: Gate, document: Mapping[str, Any]) -> float | None:
    if gate.label is not None:
        rows = [row for row in document["per_class"] if row["class"] == gate.label and row["support"]]
        return rows[0][gate.metric] if rows else None
    if gate.end is not None:
        ends = document["intervals"].get(gate.metric)
        return ends[("low", "high").index(gate.end)] if ends else None
    value: float | None = document["metrics"][gate.metric]
    return value


def _require(word: str, known: Sequence[str], kind: str, text: str) -> None:
    if word in known:
        return
    close = difflib.get_close_matches(word, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:30])}"
    raise UsageError(f"{word!r} is no {kind}", where=f"gate {text!r}", hint=hint)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
