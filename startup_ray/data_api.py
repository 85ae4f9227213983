"""The public verbs for finished datasets: write them for other tools, find what is wrong with them, take items out.

    document = export_dataset(dataset, to="webdataset")
    document = audit_dataset(dataset)
    document = forget_items(["cat-1"], storage="runs")

From here down: `outlet/`, `audit/`, `takedown.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from startup_ray import runs
from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.planning import require_finished
from startup_ray.progress import Progress, ignore
from startup_ray.runs import Run
from startup_ray.storage import Folder


def export_dataset(
    dataset: Dataset,
    *,
    to: str,
    out: str | None = None,
    splits: Sequence[str] = (),
    part_bytes: int = 256_000_000,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Write a dataset in a form that other tools read, or find it written.

    Args:
        to: webdataset, tfrecord, folder or parquet.
        out: a folder or URI that is not there yet, or holds this export; `<dataset>/exports/...` by default.
        splits: of train, val, test; all that have images by default.
        part_bytes: of each file, about, for the forms that put many images into one.
        fresh: write it anew, in the place of any export that is there.

    Returns:
        The document of `startup-ray export-dataset --json`.

    Raises:
        UsageError: no such form or split, no images, or `out` holds something else.
        StorageError: the dataset is damaged or is being written, or `out` cannot be written.
    """
    from startup_ray.outlet import export_dataset as export

    return export(dataset, to=to, out=out, splits=splits, part_bytes=part_bytes, fresh=fresh, on_progress=on_progress)


def audit_dataset(
    dataset: Dataset,
    *,
    run: Run | None = None,
    out: str | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Write a page about what is wrong or odd in a dataset; see `audit/`.

    Args:
        run: of a classifier, that judges the labels of all splits, in this process; by default the newest that was
            evaluated on this dataset judges what it has scored.
        out: the HTML file, a path or a URI; `<dataset>/audit.html` by default.
        on_progress: called with `progress.Part`.

    Returns:
        The document of `startup-ray audit --json`.

    Raises:
        UsageError: the run is unfinished, a GAN, or does not fit the dataset.
        StorageError: the dataset cannot be read, or the page cannot be written.
    """
    if run is not None:
        require_finished(run)
        if run.is_gan:
            raise UsageError("this run is a GAN, which judges no labels", where=str(run.folder))
    from startup_ray.audit import audit

    return audit(dataset, out or dataset.folder.path(runs.AUDIT), run=run, on_progress=on_progress)


def forget_items(
    words: Sequence[str],
    *,
    storage: str = "runs",
    dataset: Folder | None = None,
    ignore_missing: bool = False,
    dry_run: bool = False,
    ask: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Remove items from every dataset of a storage, keep them out of later ingests, and name what has seen them.

    Args:
        words: ids or URLs.
        storage: as jobs name it; a dataset that lies in a storage brings its own.
        dataset: the folder in which words are looked up, all of the storage by default.
        ignore_missing: leave out words that nothing is called by.
        dry_run: change nothing.
        ask: is shown what would be forgotten, before anything is changed; it raises to stop.

    Returns:
        The document of `startup-ray forget --json`.

    Raises:
        UsageError: nothing is called so, or a URL tells no picture from others; nothing is changed.
        RunHeldError: a process is at work in one of the datasets, or learns from it; nothing is changed.
        StorageError: storage cannot be read or written.
    """
    from startup_ray import takedown

    found = takedown.look_up(words, storage=storage, dataset=dataset, ignore_missing=ignore_missing)
    document = found.document(is_done=False)
    if dry_run:
        return document
    if ask is not None and (found.words or found.holdings):
        ask(document)
    return takedown.carry_out(found, made=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}").document(is_done=True)


def undo_forgetting(words: Sequence[str], *, storage: str = "runs", dataset: Folder | None = None) -> int:
    """Let in again what was forgotten by these ids or URLs; returns how many words of the list they stood for.

    Nothing comes back by itself: an ingest has to fetch it, with `again=Again(("forgotten",))` where it is finished.

    Raises:
        UsageError: nothing was forgotten by such a word.
        StorageError: storage cannot be read or written.
    """
    from startup_ray.takedown import undo

    return undo(words, storage=storage, dataset=dataset)
