"""The verbs for finished datasets: `export-dataset`, `audit` and `forget`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from startup_ray.errors import UsageError, first_line

if TYPE_CHECKING:
    from startup_ray.dataset import Dataset
    from startup_ray.storage import Folder

SHOWN_FINDINGS, SHOWN_ITEMS = 12, 5
HOW = {"train": "learnt from it", "val": "chosen by it", "test": "judged on it"}
"""What a run does with a split."""


def add_export_dataset(parser: argparse.ArgumentParser) -> None:
    _add_dataset(parser)
    parser.add_argument("--to", metavar="FORM", required=True, help="webdataset, tfrecord, folder or parquet")
    parser.add_argument("--out", metavar="DIR", help="a folder or URI (default: below DATASET/exports)")
    parser.add_argument(
        "--split", metavar="NAME", nargs="+", action="extend", default=[], help="of train val test (default: all)"
    )
    parser.add_argument("--shard-size", metavar="SIZE", default="256MB", help="of each file, about (default: 256MB)")
    parser.add_argument("--fresh", action="store_true", help="write it anew")


def export_dataset(args: argparse.Namespace) -> int:
    """Print where the export is, and what is in it."""
    from startup_ray import data_api
    from startup_ray.console import progress

    size = _bytes(args.shard_size, "--shard-size")
    dataset = _named_dataset(args.dataset, args.set)
    with redirect_stdout(sys.stderr), progress("export", quiet=args.quiet) as show:
        document = data_api.export_dataset(
            dataset, to=args.to, out=args.out, splits=args.split, part_bytes=size, fresh=args.fresh, on_progress=show
        )
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    splits = ", ".join(f"{number:,} {split}" for split, number in document["splits"].items())
    print(f"export    {document['export']}")
    print(f"          {document['to']}: {document['files']:,} files, {document['bytes'] / 1e6:,.1f} MB")
    print(f"          {splits}")
    return 0


def _bytes(text: str, option: str) -> int:
    """`256MB` -> 256,000,000."""
    from pydantic import TypeAdapter, ValidationError

    from startup_ray.section import Scaled

    try:
        return TypeAdapter(Scaled).validate_python(text)
    except ValidationError:
        raise UsageError("not a size", where=f"{option} {text}", hint="for example 256MB or 1GiB") from None


def add_audit(parser: argparse.ArgumentParser) -> None:
    _add_dataset(parser)
    parser.add_argument(
        "--run",
        dest="judge",
        metavar="RUN",
        help="a classifier that judges the labels (default: the newest that was evaluated on it)",
    )
    parser.add_argument("--out", metavar="FILE", help="where to write the page (default: DATASET/audit.html)")
    parser.add_argument("--open", action="store_true", help="show it in a browser")


def audit(args: argparse.Namespace) -> int:
    """Print what was found, worst first, and where the page is."""
    from startup_ray import data_api, verbs
    from startup_ray.console import progress
    from startup_ray.planning import named_run

    dataset = _named_dataset(args.dataset, args.set)
    run = named_run(args.judge, args.set) if args.judge else None
    with redirect_stdout(sys.stderr), progress("audit", quiet=args.quiet) as show:
        document = data_api.audit_dataset(dataset, run=run, out=args.out, on_progress=show)
    print(json.dumps(document, indent=2, ensure_ascii=False) if args.json else _findings(document))
    if args.open:
        verbs.show(document["audit"])
    return 0


def _findings(document: Mapping[str, Any]) -> str:
    rows = document["findings"]
    images = sum(document["splits"].values())
    lines = [f"audit     {document['audit']}", f"          {images:,} images of {document['items']:,} items"]
    for row in rows[:SHOWN_FINDINGS]:
        note = f"  ({row['note']})" if row["note"] else ""
        lines.append(f"{row['level']:4}  {row['count']:>9,} {row['what']:7}  {row['title']}{note}")
    if len(rows) > SHOWN_FINDINGS:
        lines.append(f"      and {len(rows) - SHOWN_FINDINGS} more kinds, see the page")
    return "\n".join(lines if rows else [*lines, "nothing was found"])


def add_forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", metavar="ID|URL", nargs="*", help="as the manifest has them; - reads them from stdin")
    parser.add_argument("--from", dest="file", metavar="FILE", help="more of them, one a line")
    parser.add_argument("--storage", metavar="PLACE", default="runs", help="what jobs name so (default: runs)")
    parser.add_argument("--dataset", metavar="DATASET", help="look them up in this folder, or in that of a job file")
    parser.add_argument("--ignore-missing", action="store_true", help="leave out words that nothing is called by")
    parser.add_argument("--undo", action="store_true", help="let them in again, at the next ingest")
    parser.add_argument("--dry-run", action="store_true", help="print what would be forgotten, and what has seen it")
    parser.add_argument("--yes", action="store_true", help="forget without asking")


def forget(args: argparse.Namespace) -> int:
    """Print what was forgotten where, and what has seen it."""
    from startup_ray import data_api

    words, dataset = _words(args), _dataset_folder(args.dataset)
    storage = str(dataset.parent.parent) if dataset and dataset.parent.name == "datasets" else args.storage
    if args.undo:
        number = data_api.undo_forgetting(words, storage=storage, dataset=dataset)
        hint = "fetched again by: startup-ray ingest JOB --retry-failed --only forgotten"
        print(json.dumps({"let_in": number}) if args.json else f"let in {number}; {hint}")
        return 0
    document = data_api.forget_items(
        words,
        storage=storage,
        dataset=dataset,
        ignore_missing=args.ignore_missing,
        dry_run=args.dry_run,
        ask=lambda found: _ask(args, found, storage),
    )
    print(json.dumps(document, indent=2, ensure_ascii=False) if args.json else _forgotten(document, storage))
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    """Of the command line, of stdin and of a file, each once."""
    lines = sys.stdin.read() if "-" in args.words else ""
    if args.file:
        try:
            lines += "\n" + Path(args.file).read_text("utf-8-sig")
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the words: {first_line(error)}", where=args.file) from error
    words = [word for word in args.words if word != "-"] + [line.strip() for line in lines.split("\n")]
    found = list(dict.fromkeys(filter(None, words)))
    if not found:
        raise UsageError("nothing is named", hint="give ids or URLs, - or --from FILE")
    return found


def _dataset_folder(target: str | None) -> Folder | None:
    """The folder of a dataset, finished or not."""
    from startup_ray.ingest.chunks import LEDGER
    from startup_ray.jobfile import load_job
    from startup_ray.planning import dataset_folder, is_job_file
    from startup_ray.storage import open_folder

    if target is None:
        return None
    folder = dataset_folder(load_job(target)) if is_job_file(target) else open_folder(target)
    if not folder.exists(LEDGER):
        raise UsageError("no dataset here", where=str(folder), hint="`startup-ray runs` lists what there is")
    return folder


def _ask(args: argparse.Namespace, document: Mapping[str, Any], storage: str) -> None:
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("forgetting needs a yes", hint="add --yes; --dry-run shows what would be forgotten")
    print(_forgotten(document, storage), file=sys.stderr)
    print("forget this for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was forgotten")


def _forgotten(document: Mapping[str, Any], storage: str) -> str:
    """The document for people."""
    from startup_ray.ingest.finish import one_line

    verb = "forgotten" if "forgotten" in document else "would forget"
    lines = []
    for at in document.get("forgotten", document.get("would_forget", ())):
        names = ", ".join(map(one_line, at["items"][:SHOWN_ITEMS]))
        more = ", ..." if len(at["items"]) > SHOWN_ITEMS else ""
        lines.append(f"{verb:12}  {len(at['items']):,} of {at['dataset']}: {names}{more}")
    lines += [f"{one['kind']:12}  {one['path']}  {_seen(one)}" for one in document["seen_by"]]
    runs = sorted({one["name"] for one in document["seen_by"] if one["kind"] in ("run", "sweep")})
    if runs:
        lines.append(f"they keep what they have learnt; startup-ray runs delete {' '.join(runs)} --storage {storage}")
    return "\n".join(lines or ["nothing to forget"])


def _seen(witness: Mapping[str, Any]) -> str:
    from startup_ray.outlet import FORMS

    if witness["kind"] == "cache":
        return "deleted with it; other nodes keep theirs"
    if witness["kind"] == "report":
        return "may show it"
    if witness["kind"] == "export" and witness["name"] in FORMS:  # of the dataset, not of a run's model
        return "has a copy of it"
    return ", ".join(HOW[split] for split in witness["splits"])


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="the folder of a dataset, or a job file: its newest")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override a key of the job file"
    )


def _named_dataset(target: str, overrides: Sequence[str]) -> Dataset:
    """The finished dataset in a folder, or the newest one of a job file.

    Raises:
        UsageError: there is none.
    """
    from startup_ray.dataset import read_dataset
    from startup_ray.jobfile import load_job
    from startup_ray.planning import is_job_file, need_dataset
    from startup_ray.storage import open_folder

    return need_dataset(load_job(target, set=overrides)) if is_job_file(target) else read_dataset(open_folder(target))
