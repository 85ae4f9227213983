"""Two runs on the same rows: is one better, by how much, and how sure is that?

document = compare_runs(one, other, seed=7)
verdict(document)       # 'b-2 better than a-1 by 0.8 points of accuracy, interval 0.2 to 1.4'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from startup_ray import runs
from startup_ray.confidence import compare
from startup_ray.errors import UsageError
from startup_ray.judged import Rows, read_rows
from startup_ray.storage import Folder

_AGAIN = "evaluate both by the same job file: `startup-ray evaluate JOB`"


def compare_runs(one: Folder, other: Folder, *, seed: int = 0) -> dict[str, Any]:
    """Compare the last evaluations of two runs, row by row.

    Returns:
        The document of `startup-ray compare --json`: what `confidence.compare` tells, and `runs`, `split`,
        `dataset_digest`, `average`.

    Raises:
        UsageError: a run is not evaluated, or they were not judged on the same rows and classes.
        StorageError: storage cannot be read.
    """
    judged = [_last(run) for run in (one, other)]
    documents = [runs.read_json(folder, runs.EVALUATION) for folder in judged]
    for run, document in zip((one, other), documents, strict=True):
        if document.get("kind") == "gan":
            hint = "`startup-ray report RUN RUN` shows their distances side by side"
            raise UsageError("a GAN is not judged row by row", where=str(run), hint=hint)
    for key, what in (("dataset_digest", "datasets"), ("split", "splits")):
        if documents[0][key] != documents[1][key]:
            said = " and ".join(str(document[key]) for document in documents)
            raise UsageError(f"the runs were evaluated on different {what}: {said}", where=str(other), hint=_AGAIN)
    classes = sorted({name for document in documents for name in document["classes"]})
    first, second = (read_rows(folder / "predictions", classes) for folder in judged)
    labels, of_one, of_other = _paired(first, second)
    if not len(labels):
        raise UsageError("the runs have no scored row in common", where=str(other), hint=_AGAIN)
    average = documents[0]["average"]
    found = compare(labels, of_one, of_other, num_classes=len(classes), seed=seed, average=average)
    head = {"runs": [one.name, other.name], "split": documents[0]["split"]}
    return head | {"dataset_digest": documents[0]["dataset_digest"], "average": average} | found


def verdict(document: Mapping[str, Any], metric: str = "accuracy") -> str:
    """One sentence."""
    one, other = document["runs"]
    found = document["differences"][metric]
    ends = sorted((100 * found["low"], 100 * found["high"]))
    if found["value"] < 0:
        one, other, ends = other, one, [-end for end in reversed(ends)]
    text = f"by {100 * abs(found['value']):.1f} points of {metric}, interval {ends[0]:.1f} to {ends[1]:.1f}"
    if found["significant"]:
        return f"{other} better than {one} {text}"
    return f"no sure difference between {document['runs'][0]} and {document['runs'][1]}: {other} ahead {text}"


def last_evaluation(run: Folder) -> Folder | None:
    """The evaluation that was asked for last, which need not be the one computed last; None without any."""
    keys = [key for key in run.list("evaluations") if run.exists(f"evaluations/{key}/{runs.EVALUATION}")]
    last = runs.read_json(run, runs.LAST_EVALUATION).get("key")
    return run / "evaluations" / (last if last in keys else keys[-1]) if keys else None


def _last(run: Folder) -> Folder:
    found = last_evaluation(run)
    if found is None:
        raise UsageError("this run is not evaluated yet", where=str(run), hint="`startup-ray evaluate JOB` does that")
    return found


def _paired(one: Rows, other: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and both predictions, of the rows that both have scored."""
    import pyarrow.compute as pc

    places = pc.index_in(one.ids, other.ids)
    is_here = pc.is_valid(places).to_numpy(zero_copy_only=False)
    at = places.drop_null().to_numpy()
    return one.labels[is_here], one.predicted[is_here], other.predicted[at]
