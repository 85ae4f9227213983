"""A data card: what is wrong or odd in a dataset, worst first, as one HTML file and a document.

    document = audit(dataset, dataset.folder.path("audit.html"))
    document["findings"][0]             # {'kind': 'near_duplicates_across_splits', 'count': 12, 'examples': [...]}

`survey.py` looks at every image once and `items.py` at every row of the ledger; `labels.py`, `sizes.py`, `near.py`,
`oddities.py` and `doubts.py` judge, `sheets.py` and `page.py` show. It reads the dataset alone and changes nothing
in it. Memory: some hundred bytes per image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from startup_ray.audit import doubts, items, labels, near, oddities
from startup_ray.audit.finding import Finding, ranked
from startup_ray.audit.page import render
from startup_ray.audit.survey import Survey, read_survey
from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.progress import Progress, ignore
from startup_ray.runs import Run
from startup_ray.storage import open_folder

MAX_EXAMPLES = 100
"""Ids of one finding in the document."""


def audit(
    dataset: Dataset, path: str, *, run: Run | None = None, on_progress: Callable[[Progress], None] = ignore
) -> dict[str, Any]:
    """Look at a dataset and write the page.

    Args:
        path: of the HTML file, a path or a URI.
        run: of a classifier, that judges the labels of all splits; by default the newest that was evaluated on this
            dataset, by what it has scored.
        on_progress: called with `progress.Part`.

    Returns:
        The document of `startup-ray audit --json`.

    Raises:
        UsageError: the run does not fit the dataset, or the path names no file.
        StorageError: the dataset cannot be read, or the file cannot be written.
    """
    if path.endswith("/"):
        raise UsageError("the audit needs a file name", where=path, hint=f"for example {path}audit.html")
    judge = run or doubts.newest_judge(dataset)
    doubted = doubts.read_doubts(judge, dataset, scores_rest=run is not None) if judge else doubts.Doubts()
    survey = read_survey(dataset, on_progress)
    ledger = items.read_items(dataset)
    classes = labels.read_labels(dataset, survey)
    groups = near.read_groups(survey)
    found = ranked(
        [
            *items.findings(dataset, ledger),
            *labels.findings(dataset, survey, classes),
            *near.findings(survey, groups),
            *oddities.findings(dataset, survey),
            doubts.finding(doubted),
        ]
    )
    page = render(dataset, survey, ledger, classes, groups, doubted, found)
    target = open_folder(path)
    target.parent.put_whole(target.name, page.encode())
    return {
        "audit": target.uri,
        "dataset": str(dataset.folder),
        "digest": dataset.digest,
        "items": dataset.items,
        "counts": dataset.counts,
        "splits": dataset.splits,
        "run": str(judge.folder) if judge else None,
        "findings": [_told(finding, survey) for finding in found],
    }


def _told(finding: Finding, survey: Survey) -> dict[str, Any]:
    ids = [survey.ids[place].as_py() for place in finding.places[:MAX_EXAMPLES]]
    return {
        "kind": finding.kind,
        "level": finding.about.level,
        "title": finding.about.title,
        "count": finding.count,
        "of": finding.of,
        "what": finding.what,
        "note": finding.note,
        "hint": finding.about.hint,
        "examples": ids or list(finding.names[:MAX_EXAMPLES]),
    }
