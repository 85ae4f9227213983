"""One self-contained HTML file about a run, or a comparison of several.

    write_report([run.folder], "report.html")

`data.py` reads what lies in a run's folder and in its dataset's, `plots.py` draws, `render.py` fills
`report.html.jinja`. Law: what comes from outside (names, ids, URLs) stays text, and opening the file asks no network.
"""

from __future__ import annotations

from collections.abc import Sequence

from startup_ray.errors import UsageError
from startup_ray.report.data import read_view
from startup_ray.report.render import render
from startup_ray.storage import Folder, open_folder

MAX_MISTAKES = 24


def write_report(runs: Sequence[Folder], path: str) -> str:
    """Write the report and return its absolute path or URI. A run need be neither finished nor evaluated.

    Args:
        runs: folders of runs; more than one are compared first.
        path: of the HTML file, a path or a URI.

    Raises:
        UsageError: a folder holds no run, or there is none to report on.
        StorageError: the file cannot be written.
    """
    if not runs:
        raise UsageError("no run to report on", hint="name a job file or the folder of a run")
    if path.endswith("/"):
        raise UsageError("the report needs a file name", where=path, hint=f"for example {path}report.html")
    thumbnails = max(4, MAX_MISTAKES // len(runs))  # so that a comparison stays small as well
    page = render([read_view(run, max_mistakes=thumbnails) for run in runs])
    target = open_folder(path)
    target.parent.put_whole(target.name, page.encode())
    return target.uri
