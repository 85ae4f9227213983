"""One self-contained HTML file about a run or a sweep, or a comparison of several, and a run's model card beside it.

    write_report([run.folder], "report.html")

`data.py` reads what lies in a run's folder and in its dataset's, `sweep_data.py` what lies in a sweep's,
`sections.py` says what is shown of it, `plots.py` draws, `render.py` fills the templates. Law: what comes from
outside (names, ids, URLs) stays text, and opening the file asks no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from startup_ray.comparison import compare_runs
from startup_ray.errors import StartupRayError, UsageError
from startup_ray.report.card import card
from startup_ray.report.data import read_views
from startup_ray.report.render import render
from startup_ray.report.samples import MAX_GRIDS
from startup_ray.storage import Folder, open_folder

MAX_MISTAKES = 24
CARD = "MODEL_CARD.md"


def write_report(runs: Sequence[Folder], path: str) -> str:
    """Write the report and return its absolute path or URI. A run need be neither finished nor evaluated.

    Args:
        runs: folders of runs or sweeps; more than one are compared first. Of one run that has been trained,
            `MODEL_CARD.md` is written beside the report.
        path: of the HTML file, a path or a URI.

    Raises:
        UsageError: a folder holds no run, or there is none to report on.
        StorageError: the file cannot be written.
    """
    if not runs:
        raise UsageError("no run to report on", hint="name a job file or the folder of a run")
    if path.endswith("/"):
        raise UsageError("the report needs a file name", where=path, hint=f"for example {path}report.html")
    # So that a comparison stays small as well.
    thumbnails, grids = max(4, MAX_MISTAKES // len(runs)), max(2, MAX_GRIDS // len(runs))
    views = read_views(runs, max_mistakes=thumbnails, max_grids=grids)
    page = render(views, [_paired(runs[0], run) for run in runs[1:]])
    target = open_folder(path)
    if len(views) == 1 and views[0].train:
        target.parent.put_whole(CARD, card(views[0]).encode())
    target.parent.put_whole(target.name, page.encode())
    return target.uri


def _paired(one: Folder, other: Folder) -> dict[str, Any]:
    """How a run differs from the first, or why that cannot be told."""
    try:
        document = compare_runs(one, other)
    except StartupRayError as error:
        return {"run": other.name, "document": None, "reason": error.message}
    found = document["differences"]["accuracy"]
    word = ("better", "good") if found["value"] > 0 else ("worse", "bad")
    return {"run": other.name, "document": document, "verdict": word if found["significant"] else ("no sure", "open")}
