"""The verbs for a cluster of somebody else: `submit`, `jobs`, `logs` and `stop`, by its Jobs API."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from startup_ray.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from startup_ray.job import Job
    from startup_ray.submit.jobs_api import Details, JobsApi
    from startup_ray.submit.order import Order

VERBS = ("run", "ingest", "train", "sweep", "evaluate")
STOP_WAIT_S = 90.0

log = logging.getLogger("startup_ray")


def add_submit(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s JOB --address URL [options] [-- VERB [FLAG ...]]"
    parser.add_argument("job", metavar="JOB", help="a job file below this folder, which is uploaded")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a key of the job")
    _add_address(parser)
    _add_patience(parser)
    parser.add_argument(
        "--env", metavar="NAME[=VALUE]", action="append", default=[], help="a variable for the job; no secrets"
    )
    parser.add_argument("--detach", action="store_true", help="do not wait for its end")
    parser.add_argument("--stop-on-interrupt", action="store_true", help="Ctrl-C stops the job, too")
    parser.add_argument("--any-version", action="store_true", help="another Ray or Python on the cluster will do")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent")
    parser.add_argument(
        "--kuberay", action="store_true", help="print manifests of a RayJob instead; see cluster/kuberay"
    )
    parser.add_argument("--image", metavar="NAME", help="of the pods, for --kuberay")
    parser.add_argument(
        "--claim", metavar="NAME", default="startup-ray", help="volume claim with the storage, for --kuberay"
    )


def submit(args: argparse.Namespace) -> int:
    """Start the job, or find it at work, and follow it; its own exit code."""
    from startup_ray.jobfile import load_job
    from startup_ray.submit.order import prepare, variables_of

    verb, flags = _checked(args)
    job = load_job(args.job, set=args.set)
    if args.kuberay:
        return _print_manifests(args, job, verb, flags)
    variables = variables_of(args.env, os.environ)
    order = prepare(job, args.job, [verb, *flags], set=args.set, variables=variables, folder=Path.cwd())
    if args.dry_run:
        return _print_order(order, as_json=args.json)
    from startup_ray.submit.cluster import driver_cpus, require_able
    from startup_ray.submit.send import send

    api = _api(args)
    status = require_able(api, order.needs, any_version=args.any_version)
    submission_id, is_new = send(api, order, driver_cpus=driver_cpus(status, job.ingest.manifest))
    log.info("submit: %s %s", submission_id, "is submitted" if is_new else "is at work already; following it")
    if args.detach:
        _print(args, _document(api.details(submission_id)))
        return 0
    return _follow(args, api, submission_id, stops=args.stop_on_interrupt)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    _add_address(parser)


def jobs(args: argparse.Namespace) -> int:
    """Print a row per job that was submitted."""
    found = _api(args).jobs()
    if args.json:
        print(json.dumps({"jobs": [_document(job) for job in found]}, indent=2))
        return 0
    width = max((len(job.submission_id) for job in found), default=0)
    for job in found:
        print(f"{job.submission_id:{width}}  {job.status:9}  {_when(job.start_ms)}  {job.entrypoint}")
    if not found:
        log.info("no job was submitted there")
    return 0


def add_logs(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    _add_address(parser)
    _add_patience(parser)


def logs(args: argparse.Namespace) -> int:
    """Follow a job to its end; its own exit code."""
    return _follow(args, _api(args), args.id, stops=False)


def add_stop(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    _add_address(parser)


def stop(args: argparse.Namespace) -> int:
    """Stop a job and see that it has ended."""
    from startup_ray.submit.follow import end_of

    api = _api(args)
    if not api.details(args.id).has_ended:
        api.stop(args.id)
    job = end_of(api, args.id, patience_s=STOP_WAIT_S)
    _print(args, _document(job))
    return 0


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="as `submit` and `jobs` print it")


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address", metavar="URL", help="of the Jobs API: http://HOST:8265 (default: RAY_API_SERVER_ADDRESS)"
    )
    parser.add_argument("--insecure", action="store_true", help="send the token over plain http to another machine")


def _add_patience(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--patience", metavar="SECONDS", type=float, default=60.0, help="how long it may not answer (default: 60)"
    )


def _api(args: argparse.Namespace) -> JobsApi:
    from startup_ray.submit.address import find_cluster
    from startup_ray.submit.jobs_api import JobsApi

    return JobsApi(find_cluster(args.address, env=os.environ, is_insecure=args.insecure))


def _checked(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Verb and flags that are meant for the driver, as its own parser takes them."""
    verb, *flags = args.rest or ["run"]
    if verb not in VERBS:
        raise UsageError(f"{verb!r} is nothing to submit", where="--", hint=f"one of {', '.join(VERBS)}")
    if any(flag.split("=")[0] in ("--address", "--set") for flag in flags):
        raise UsageError("--set and --address stand before `--`", where="--")
    args.parse([verb, args.job, *flags])
    return verb, flags


def _follow(args: argparse.Namespace, api: JobsApi, submission_id: str, *, stops: bool) -> int:
    from startup_ray.submit.follow import Tail, follow
    from startup_ray.submit.verdict import exit_code, in_words

    tail = Tail(_writer(sys.stderr if args.json else sys.stdout))
    try:
        try:
            job = follow(api, submission_id, tail, patience_s=args.patience)
        except KeyboardInterrupt:
            if not stops:
                raise
            log.warning("stopping %s; Ctrl-C again leaves it", submission_id)
            api.stop(submission_id)
            job = follow(api, submission_id, tail, patience_s=args.patience)
    except KeyboardInterrupt:
        return _left(args, api, submission_id)
    log.info("%s %s", submission_id, in_words(job))
    _print(args, _document(job), quiet=True)
    return exit_code(job)


def _left(args: argparse.Namespace, api: JobsApi, submission_id: str) -> int:
    where = f"{submission_id} --address {api.cluster.url}"
    log.warning(
        "the job goes on; come back with `startup-ray logs %s`, end it with `startup-ray stop %s`", where, where
    )
    _print(args, _document(api.details(submission_id)), quiet=True)
    return INTERRUPTED


def _writer(stream: Any) -> Callable[[str], object]:
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write


def _document(job: Details) -> dict[str, Any]:
    from startup_ray.submit.verdict import exit_code

    return {
        "submission_id": job.submission_id,
        "status": job.status,
        "exit_code": exit_code(job) if job.has_ended else None,
        "driver_exit_code": job.driver_exit_code,
        "message": job.message,
        "entrypoint": job.entrypoint,
    }


def _print(args: argparse.Namespace, document: dict[str, Any], *, quiet: bool = False) -> None:
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif not quiet:
        print(f"{document['submission_id']}  {document['status']}")


def _print_order(order: Order, *, as_json: bool) -> int:
    from startup_ray.submit.upload import megabytes

    largest = sorted(order.files, key=lambda file: -file.size)
    document = {
        "entrypoint": order.entrypoint,
        "submission_id": f"{order.stem}-N",
        "needs": dict(order.needs),
        "variables": dict(order.variables),
        "files": len(order.files),
        "bytes": order.size,
        "upload": [file.name for file in order.files],
    }
    if as_json:
        print(json.dumps(document, indent=2))
        return 0
    needs = ", ".join(f"{amount:g} {name}s" for name, amount in order.needs.items())
    print(f"{document['submission_id']}: {order.entrypoint}")
    print(f"needs {needs or 'nothing beside the driver'}")
    print(f"uploads {len(order.files)} files, {megabytes(order.size)}; the largest:")
    for file in largest[:10]:
        print(f"  {file.size / 1e6:8.2f} MB  {file.name}")
    return 0


def _when(start_ms: int | None) -> str:
    return datetime.fromtimestamp(start_ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if start_ms else " " * 19


def _print_manifests(args: argparse.Namespace, job: Job, verb: str, flags: Sequence[str]) -> int:
    from startup_ray.submit import kuberay
    from startup_ray.submit.order import is_here, overrides, refuse_secrets, require_lasting

    argv = ["startup-ray", verb, kuberay.JOB_FILE, *overrides(args.set), *flags]
    refuse_secrets({}, argv)
    require_lasting(job.storage, args.job)
    manifest, scaling = job.ingest.manifest, job.scaling
    if is_here(manifest):
        hint = f"a URL, or a path below {kuberay.STORAGE}"
        raise UsageError("a manifest on this machine is in no pod", where=f"ingest.manifest: {manifest}", hint=hint)
    if not args.image:
        raise UsageError("which image?", where="--image", hint="build one from cluster/docker")
    config = kuberay.job_config(name=job.name, text=Path(args.job).read_text("utf-8"))
    pods = kuberay.ray_job(
        name=job.name,
        argv=argv,
        workers=scaling.max_workers,
        cpus_per_worker=scaling.threads_per_worker,
        gpus_per_worker=scaling.gpus_per_worker,
        image=args.image,
        claim=args.claim,
        driver_cpus=1 if manifest.startswith("sample:") else 0,
    )
    print(kuberay.to_yaml([config, pods]), end="")
    return 0
