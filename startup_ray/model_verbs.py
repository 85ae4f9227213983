"""The verbs for the models of finished runs: `compare`, `export`, `sample` and `predict`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from startup_ray.errors import DataError, UsageError

if TYPE_CHECKING:
    from startup_ray.job import IngestOptions
    from startup_ray.runs import Run

OVERRIDABLE = ("ingest.fetch.", "ingest.image.resize=")
"""Keys of a run's own job that `predict` may be told otherwise: what else there is has made the model."""
SHOWN_CLASSES = 10

log = logging.getLogger("startup_ray")


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", metavar="RUN", help="the folder of an evaluated run, or a job file: its newest")
    parser.add_argument("other", metavar="RUN", help="another, judged on the same rows")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap (default: 0)")


def compare(args: argparse.Namespace) -> int:
    """Print a verdict, and a row per metric."""
    from startup_ray import api
    from startup_ray.comparison import verdict
    from startup_ray.planning import named_run

    document = api.compare_runs(named_run(args.one, []), named_run(args.other, []), seed=args.seed)
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    right = f"{document['only_one_right']:,} only by the first, {document['only_other_right']:,} only by the second"
    print(verdict(document))
    print(f"{document['rows']:,} rows, rightly classified {right}: McNemar p = {document['p_value']:.3g}")
    print(_differences(document["differences"]))
    return 0


def _differences(found: Mapping[str, Mapping[str, Any]]) -> str:
    width = max(map(len, found))
    lines = [f"{'second less first':{width}}  {'points':>8}  95% interval"]
    for name, part in found.items():
        ends = f"{100 * part['low']:+.2f} to {100 * part['high']:+.2f}"
        lines.append(f"{name:{width}}  {100 * part['value']:+8.2f}  {ends}{'  *' if part['significant'] else ''}")
    return "\n".join([*lines, "* the interval does not hold 0"])


def add_export(parser: argparse.ArgumentParser) -> None:
    _add_run(parser, "override a key of the job file, to find its run")
    parser.add_argument(
        "--to", metavar="FORMATS", default="keras,savedmodel,onnx", help="of keras,savedmodel,onnx (default: all)"
    )
    parser.add_argument("--out", metavar="DIR", help="a folder or URI (default: RUN/exports)")
    parser.add_argument("--samples", metavar="N", type=int, default=64, help="images to compare on (default: 64)")


def export(args: argparse.Namespace) -> int:
    """Print a row per format."""
    from startup_ray import api

    run = _named_run(args)
    names = [name.strip() for name in args.to.split(",") if name.strip()]
    if not names:
        raise UsageError("no format is named", where="--to", hint="for example --to onnx")
    with redirect_stdout(sys.stderr):
        document = api.export_model(run, to=names, out=args.out, samples=args.samples)
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(_table(document["exports"]))
        log.info("compared on %d images: %s", document["samples"], document["images"])
    return 0


def add_sample(parser: argparse.ArgumentParser) -> None:
    _add_run(parser, "override a key of the job file, to find its run")
    parser.add_argument("--count", metavar="N", type=int, default=64, help="images to make (default: 64)")
    parser.add_argument("--class", metavar="NAME", dest="label", help="of this class (default: each in turn)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="the same gives the same images (default: 0)")
    parser.add_argument("--out", metavar="DIR", required=True, help="a folder or URI")


def sample(args: argparse.Namespace) -> int:
    """Print where the images are."""
    from startup_ray import api

    run = _named_run(args)
    with redirect_stdout(sys.stderr):
        document = api.sample_images(run, args.out, count=args.count, label=args.label, seed=args.seed)
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(f"{len(document['files']):,} images in {document['out']}, the first of them in {document['grid']}")
    return 0


def add_predict(parser: argparse.ArgumentParser) -> None:
    _add_run(parser, "override a key of the run's ingest.fetch, e.g. ingest.fetch.per_host=2")
    parser.add_argument(
        "targets", metavar="MANIFEST|FOLDER|IMAGE", nargs="+", help="a manifest, or folders and image files"
    )
    parser.add_argument("--out", metavar="FILE", help=".jsonl, .csv or .parquet (default: JSONL on stdout)")
    parser.add_argument("--top", metavar="N", type=int, default=3, help="classes to name in each row (default: 3)")


def predict(args: argparse.Namespace) -> int:
    """Print a row per item, or where they are; DataError's exit code if not one has a label."""
    from startup_ray import api
    from startup_ray.console import progress

    if args.top < 1:
        raise UsageError("at least one class is named", where=f"--top {args.top}")
    run = _named_run(args)
    with redirect_stdout(sys.stderr), progress("predict", quiet=args.quiet) as show:
        document = api.predict_images(
            run, args.targets, ingest=_ingest_options(args, run), out=args.out, top=args.top, on_progress=show
        )
    rows = document["predictions"]
    if not args.json:
        _print_lines([f"predictions  {rows}"] if args.out else [json.dumps(row, ensure_ascii=False) for row in rows])
    if not document["classes"]:
        raise _nothing(document, ", ".join(args.targets))
    if args.json:
        _print_lines([json.dumps(document, indent=2, ensure_ascii=False)])
    else:
        log.info("%s", _summary(document))
    return 0


def _add_run(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("run_target", metavar="RUN", help="the folder of a finished run, or a job file: its newest")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)


def _named_run(args: argparse.Namespace) -> Run:
    from startup_ray.planning import is_job_file, named_run

    if not is_job_file(args.run_target):
        for override in args.set:
            if args.verb != "predict" or not override.strip().startswith(OVERRIDABLE):
                hint = "name the job file to choose among its runs"
                raise UsageError("this cannot be changed for a finished run", where=f"--set {override}", hint=hint)
    return named_run(args.run_target, args.set)


def _ingest_options(args: argparse.Namespace, run: Run) -> IngestOptions:
    from startup_ray.planning import job_of

    return job_of(run, [override for override in args.set if override.strip().startswith(OVERRIDABLE)]).ingest


def _print_lines(lines: Sequence[str]) -> None:
    """To stdout, whose reader may have seen enough, as `head` has."""
    try:
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does Python's own last flush fail


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'format':10}  {'size':>8}  {'max diff':>9}  {'classes':7}  {'ms of 1':>8}  {'ms of 32':>8}  path"]
    for row in rows:
        same = "same" if row["same_classes"] else "DIFFER"
        one, many = (f"{row['latency_ms'][size]:8.3f}" for size in ("1", "32"))
        size = f"{row['bytes'] / 1e6:.2f} MB"
        lines.append(
            f"{row['format']:10}  {size:>8}  {row['max_abs_diff']:9.2g}  {same:7}  {one}  {many}  {row['path']}"
        )
    return "\n".join(lines)


def _summary(document: Mapping[str, Any]) -> str:
    states, classes = document["rows"], document["classes"]
    head = f"{sum(states.values()):,} items: {_counts(states)}"
    shown = dict(list(classes.items())[:SHOWN_CLASSES])
    rest = f", and {len(classes) - SHOWN_CLASSES:,} other classes" if len(classes) > SHOWN_CLASSES else ""
    labelled = ", ".join(f"{name}: {number:,}" for name, number in shown.items())
    return f"{head}\nlabelled {labelled}{rest}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _nothing(document: dict[str, Any], where: str) -> DataError:
    states = document["rows"]
    message = f"nothing could be labelled: {_counts(states)}" if states else "nothing to label: no files here"
    hint = "each row says why" if states else "hidden files and folders are left out"
    if "blocked_address" in states:
        hint += "; private networks need --set ingest.fetch.allow_private=[10.0.0.0/8]"
    return DataError(message, where=where, hint=hint, result=document)
