"""Command line: words -> verbs of `api.py` -> one document or a few lines for people, and an exit code.

stdout carries the result alone; progress, notes and errors go to stderr. Nothing heavy is imported before a
stage needs it: `--help` must answer at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from startup_ray import __version__
from startup_ray.errors import INTERRUPTED, GateError, StartupRayError, UsageError

if TYPE_CHECKING:
    from startup_ray.dataset import Dataset
    from startup_ray.job import Job
    from startup_ray.ledger import Again
    from startup_ray.planning import Step
    from startup_ray.runs import Run

EXIT_CODES = """exit codes: 0 ok, 1 unexpected, 2 job file or usage, 3 data below the asked threshold,
4 training failed or diverged, 5 cluster or storage not usable, 6 gate not met, 130 interrupted"""

Documents = dict[str, dict[str, Any]]

_INTERRUPTED = StartupRayError("interrupted", hint="run the same command again to go on")


def entry() -> None:
    """The command `startup-ray`: a process of its own, which may be made quiet below Python."""
    sys.exit(main(owns_process=True))


def main(argv: Sequence[str] | None = None, *, owns_process: bool = False) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, rest = _parted(words)
    args = argparse.Namespace(json="--json" in words, verbose=0, is_stopped=False, rest=rest)  # until they are parsed
    args.parse = lambda words: _parser().parse_args(words)
    try:
        parser = _parser()
        parser.parse_args(words, args)
        if args.verb is None:
            parser.print_help()
            return UsageError.exit_code
        _set_up(args, owns_process=owns_process)
        return int(args.run(args))
    except KeyboardInterrupt:
        return _fail(args, _INTERRUPTED, INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last resort: a fault of ours, told in one line
        if args.verbose:
            traceback.print_exc()
        if args.is_stopped:  # whatever breaks while we leave, or because our children were told to leave as well
            return _fail(args, _INTERRUPTED, INTERRUPTED)
        if isinstance(error, StartupRayError):
            return _fail(args, error, error.exit_code)
        ours = StartupRayError(f"unexpected {type(error).__name__}: {error}", hint="-v shows where; please report it")
        return _fail(args, ours, ours.exit_code)


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """Our words, and those behind `--`, which `submit` hands on."""
    if words[:1] != ["submit"] or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


class _Parser(argparse.ArgumentParser):
    """Wrong words are an error of ours, so that `--json` tells it too, and of their verb, whose help tells more."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="startup-ray",
        description="From a list of image URLs to a tested Keras 3 model, on a laptop or a Ray cluster.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"startup-ray {__version__}")
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    common = _common()

    def add(verb: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(verb, help=text, description=text, parents=[common], epilog=EXIT_CODES)
        sub.set_defaults(run=run, verb=verb, job=None, retry_failed=False, only=[])
        return sub

    add("demo", _stages, "all stages on the digits job: real images, offline, no GPU")
    stages = {
        verb: add(verb, _stages, text)
        for verb, text in (
            ("ingest", "manifest -> dataset, with a ledger of every item; run again to go on"),
            ("train", "train the job's model on N workers; run again to resume"),
            ("sweep", "search the job's space for the best values; run again to go on"),
            ("evaluate", "exact distributed metrics of the best model, and gates"),
            ("run", "ingest, sweep if asked, train, evaluate and report"),
        )
    }
    for stage in stages.values():
        stage.add_argument("job", metavar="JOB", help="a job file")
    stages["ingest"].add_argument("--retry-failed", action="store_true", help="fetch once more what has failed")
    stages["ingest"].add_argument(
        "--only", metavar="STATE", nargs="+", action="extend", default=[], help="of these states: timeout http_5xx"
    )
    report = add("report", _report, "one HTML file about a run, or comparing several")
    report.add_argument("targets", metavar="JOB|RUN", nargs="+", help="a job file, or folders of runs")
    report.add_argument("--out", metavar="FILE", help="where to write it (default: in the folder of the last run)")
    report.add_argument("--open", action="store_true", help="show it in a browser")
    _add_tools(verbs)
    schema = verbs.add_parser("schema", help="JSON schema of a job file", description="JSON schema of a job file")
    schema.add_argument("--json", action="store_true", help="it is JSON anyway")
    schema.set_defaults(run=_schema, verb="schema", verbose=0, quiet=False)
    return parser


def _add_tools(commands: Any) -> None:
    """What belongs to no stage."""
    from startup_ray import cluster_verbs, data_verbs, model_verbs, verbs

    def add(
        verb: str, run: Callable[[argparse.Namespace], int], text: str, *parents: _Parser
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            verb, help=text, description=text, parents=[_basic(), *parents], epilog=EXIT_CODES
        )
        sub.set_defaults(run=run, verb=verb)
        return sub

    model_verbs.add_compare(
        add("compare", model_verbs.compare, "whether one of two runs is better on the same rows, and how sure that is")
    )
    model_verbs.add_export(
        add("export", model_verbs.export, "the model of a run as Keras, SavedModel and ONNX, compared")
    )
    model_verbs.add_sample(add("sample", model_verbs.sample, "images that the generator of a GAN's run makes"))
    model_verbs.add_predict(add("predict", model_verbs.predict, "labels for new images by the model of a run"))
    text = "a dataset as WebDataset, TFRecord, a folder of images or Parquet, for other tools"
    data_verbs.add_export_dataset(add("export-dataset", data_verbs.export_dataset, text))
    data_verbs.add_audit(
        add("audit", data_verbs.audit, "what is wrong or odd in a dataset, worst first, as one HTML file")
    )
    text = "remove items from datasets, keep them out, and name the runs and exports that have seen them"
    data_verbs.add_forget(add("forget", data_verbs.forget, text))
    cluster_verbs.add_submit(
        add("submit", cluster_verbs.submit, "carry out a job file on a Ray cluster and follow it to its end")
    )
    cluster_verbs.add_jobs(add("jobs", cluster_verbs.jobs, "list the jobs of a cluster"))
    cluster_verbs.add_logs(add("logs", cluster_verbs.logs, "follow a job of a cluster to its end, from its first line"))
    cluster_verbs.add_stop(add("stop", cluster_verbs.stop, "stop a job of a cluster, and see that it has ended"))
    text = "see that versions, Ray, storage, disks, clocks, GPUs and workers are as they must be"
    verbs.add_doctor(add("doctor", verbs.doctor, text, _of_job()))
    verbs.add_runs(add("runs", verbs.runs, "list datasets, runs and sweeps with state, size and age, or delete some"))


def _basic() -> _Parser:
    basic = _Parser(add_help=False)
    basic.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    basic.add_argument("-v", "--verbose", action="count", default=0, help="tracebacks and more notes")
    basic.add_argument("-q", "--quiet", action="store_true", help="no progress, no notes")
    return basic


def _of_job() -> _Parser:
    of_job = _Parser(add_help=False)
    of_job.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key of the job")
    of_job.add_argument("--address", metavar="ADDRESS", help="a running Ray (default: RAY_ADDRESS, or a local one)")
    return of_job


def _common() -> _Parser:
    common = _Parser(add_help=False, parents=[_basic(), _of_job()])
    common.add_argument("--dry-run", action="store_true", help="print the resolved job and what would be done")
    common.add_argument("--fresh", action="store_true", help="start anew, in new folders")
    return common


def _set_up(args: argparse.Namespace, *, owns_process: bool) -> None:
    from startup_ray.console import keep_stderr, listen

    if owns_process and not args.verbose:
        keep_stderr()
    listen(quiet=args.quiet, verbose=bool(args.verbose))

    def stop(*_: object) -> NoReturn:
        args.is_stopped = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # a polite stop ends like Ctrl-C
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as by nohup
        signal.signal(signal.SIGINT, stop)


def _schema(_: argparse.Namespace) -> int:
    from startup_ray.job import schema

    print(json.dumps(schema(), indent=2))
    return 0


def _stages(args: argparse.Namespace) -> int:
    """`demo`, `run` and the verbs of one stage."""
    from startup_ray.jobfile import load_job
    from startup_ray.planning import need_dataset, plan, stages_of

    path = args.job or _digits_job()
    job = load_job(path, set=args.set)
    stages = stages_of(job) if args.verb in ("demo", "run") else (args.verb,)
    again = _again(args)
    steps = plan(job, stages, fresh=args.fresh, again=again)
    if args.dry_run:
        return _show_plan(args, job, steps, _survey(job, steps, again) if args.verb == "ingest" else {})
    dataset = None if "ingest" in stages else need_dataset(job)  # before Ray is started for nothing
    # Ray tells of dead workers on stdout, which belongs to the result.
    with redirect_stdout(sys.stderr), _ray(args, needed=any(step.needs_ray for step in steps)):
        documents = _carry_out(args, job, stages, dataset, again)
    one_stage = args.verb not in ("demo", "run")
    _show(args, documents[args.verb] if one_stage else {"stages": documents}, documents, path)
    return _judge(documents)


def _again(args: argparse.Namespace) -> Again:
    from startup_ray.ledger import NOTHING, failures

    if args.only and not args.retry_failed:
        raise UsageError("--only says which failures --retry-failed fetches", hint="add --retry-failed")
    if args.fresh and args.retry_failed:
        raise UsageError("--fresh fetches everything, --retry-failed what has failed", hint="leave one of them out")
    return failures(args.only) if args.retry_failed else NOTHING


def _survey(job: Job, steps: Sequence[Step], again: Again) -> dict[str, Any]:
    from startup_ray.planning import survey_ingest
    from startup_ray.storage import Folder

    return {} if steps[0].state == "finished" else survey_ingest(job, Folder(steps[0].folder), again)


def _carry_out(
    args: argparse.Namespace, job: Job, stages: Sequence[str], dataset: Dataset | None, again: Again
) -> Documents:
    from startup_ray import api, runs
    from startup_ray.console import progress
    from startup_ray.planning import find_run, winner_of

    documents: Documents = {}
    if dataset is None:
        with progress("ingest", quiet=args.quiet) as show:
            dataset = api.ingest_images(job, fresh=args.fresh, again=again, on_progress=show)
        documents["ingest"] = dataset.document()
    if "train" in stages and "evaluate" in stages:
        api.require_judgeable(dataset, job)
    if "sweep" in stages:
        with progress("sweep", quiet=args.quiet) as show:
            documents["sweep"] = api.search_values(dataset, job, fresh=args.fresh, on_progress=show)
        job = winner_of(job, documents["sweep"])
    if "train" in stages:
        with progress("train", quiet=args.quiet) as show:
            run = api.train_model(dataset, job, fresh=args.fresh, on_progress=show)
        documents["train"] = run.document
        if "sweep" in stages:
            runs.put_json(run.folder, runs.SWEEP, {"sweep": documents["sweep"]["sweep"]})
    elif stages not in (("ingest",), ("sweep",)):
        run = find_run(dataset, job)
    if "evaluate" in stages:
        with progress("evaluate", quiet=args.quiet) as show:
            documents["evaluate"] = api.evaluate_model(run, dataset, job, fresh=args.fresh, on_progress=show)
    if "report" in stages:
        documents["report"] = _write_report([run], None)
    return documents


def _report(args: argparse.Namespace) -> int:
    from startup_ray import verbs
    from startup_ray.planning import named_run

    found = [named_run(target, args.set) for target in args.targets]
    if args.dry_run:
        document: dict[str, Any] = {"plan": [{"stage": "report", "runs": [str(run.folder) for run in found]}]}
    else:
        document = _write_report(found, args.out)
    _show(args, document, {"report": document}, None)
    if args.open and not args.dry_run:
        verbs.show(document["report"])
    return 0


def _write_report(found: Sequence[Run], path: str | None) -> dict[str, Any]:
    from startup_ray import api, runs

    name = runs.REPORT if len(found) == 1 else runs.COMPARISON
    return {"report": api.write_report(found, path or found[-1].folder.path(name))}


def _ray(args: argparse.Namespace, *, needed: bool) -> AbstractContextManager[Any]:
    if not needed:
        return nullcontext()
    from startup_ray.session import connect

    return connect(args.address)


def _show_plan(args: argparse.Namespace, job: Job, steps: Sequence[Step], survey: dict[str, Any]) -> int:
    from startup_ray.console import plan_text

    plain = job.model_dump(mode="json")
    rows = [{"stage": step.stage, "state": step.state, "folder": step.folder} for step in steps]
    document = {"job": plain, "plan": rows} | ({"fetch": survey} if survey else {})
    print(json.dumps(document, indent=2) if args.json else plan_text(plain, rows, survey))
    return 0


def _show(args: argparse.Namespace, document: dict[str, Any], documents: Documents, path: str | None) -> None:
    from startup_ray.console import next_commands, summary

    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    print(summary(documents))
    if args.verb == "demo":
        print(next_commands(documents, str(path)))


def _judge(documents: Documents) -> int:
    unmet = [gate for gate in documents.get("evaluate", {}).get("gates", []) if not gate["passed"]]
    for gate in unmet:
        logging.getLogger("startup_ray").warning("gate not met: %s, it is %s", gate["gate"], gate["value"])
    return GateError.exit_code if unmet else 0


def _fail(args: argparse.Namespace, error: StartupRayError, code: int) -> int:
    if args.json:
        print(json.dumps(error.document(), indent=2, ensure_ascii=False))
    print(f"error: {error}" if "\n" not in error.message else str(error), file=sys.stderr)
    return code


def _digits_job() -> str:
    """The job of `demo`: in a checkout beside the package, in an installation inside it."""
    package = Path(__file__).parent
    found = [folder / "jobs" / "digits-cnn.yaml" for folder in (package.parent, package)]
    return str(next(path for path in found if path.exists()))
