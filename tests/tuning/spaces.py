"""Spaces that the tests of a study and of its file share, and a search over one."""

from __future__ import annotations

import math
from typing import Any

from startup_ray.space_text import parse_space
from startup_ray.tuning.study import Study

MIXED = parse_space(
    {
        "training.learning_rate": "loguniform(1e-4, 1e-1)",
        "training.rate": "uniform(0, 1, step=0.3)",
        "training.weight": "uniform(-1, 1)",
        "training.batch": "logint(8, 512)",
        "training.steps": "int(1, 1000, step=7)",
        "training.layers": "int(1, 4)",
        "training.optimizer": "choice(adam, sgd, null, true, 3, 0.5)",
        "training.momentum": "uniform(0, 0.99) if training.optimizer == sgd",
        "model.filters": "choice([8], [8, 16])",
    }
)
SMALL = parse_space({"a": "int(1, 3)", "b": "choice(x, y)", "c": "choice(1, 2, 3) if b == y"})
"""12 configurations."""


def value_of(values: dict[str, Any]) -> float:
    return float(-abs(math.log10(values["training.learning_rate"]) + 2.5) - (values["training.optimizer"] == "sgd"))


def search(study: Study, trials: int) -> list[dict[str, Any]]:
    """Ask and tell, one after the other."""
    found = []
    for number in range(trials):
        values = study.ask(number)
        assert values is not None
        study.tell(number, "finished", [(1, value_of(values))])
        found.append(values)
    return found
