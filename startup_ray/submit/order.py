"""What is asked of a cluster, and all that can be known to be wrong with it before anything is sent.

order = prepare(job, "jobs/x.yaml", ["train", "--fresh"], folder=Path.cwd())
order.entrypoint            # "python -m startup_ray train jobs/x.yaml --fresh"
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from startup_ray.errors import JobError, UsageError
from startup_ray.job import Job
from startup_ray.manifests.trees import LocalTree, walk
from startup_ray.options import PythonOptions
from startup_ray.submit.upload import File, chosen, with_package
from startup_ray.usercode import locate

STOP_S = 60
"""From SIGTERM to SIGKILL, where Ray gives 3: time for a checkpoint."""
TRAINING = ("run", "train", "sweep")
_NAMES = re.compile(
    r"token|secret|passw|credential|api_?key|access_?key|private_?key|(^|_)(pat|sas|dsn)($|_)", re.IGNORECASE
)
_VALUES = re.compile(
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[pousr]_\w{30,}|hf_\w{30,}|xox[abprs]-[\w-]{10,}|-----BEGIN|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.|://[^/\s:@]+:[^/\s@]+@"
)
_HINT = "whoever may list jobs reads it there; give it to the machines: see cluster/README.md"


@dataclass(frozen=True, kw_only=True)
class Order:
    argv: tuple[str, ...]
    """Of the driver."""
    stem: str
    """Name and key of the job: the same for the same work. Submission ids are this and the number of the attempt."""
    files: tuple[File, ...]
    variables: Mapping[str, str]
    """Of the driver's environment; no secrets."""
    needs: Mapping[str, float]
    """Ray's resources that training takes together, at least."""

    @property
    def entrypoint(self) -> str:
        """For a shell, as the Jobs API wants it."""
        return shlex.join(self.argv)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def prepare(
    job: Job,
    path: str,
    words: Sequence[str] = (),
    *,
    set: Sequence[str] = (),  # noqa: A002 - the word users type
    variables: Mapping[str, str] | None = None,
    folder: Path,
) -> Order:
    """
    Args:
        path: of the job file.
        words: a verb and its flags; by default `run`.
        set: overrides of the job, already in it.
        variables: for the driver.
        folder: the working directory, here and there.

    Raises:
        UsageError: what the job needs would not be there, would be gone with it, or a secret would be readable.
    """
    verb, *flags = words or ("run",)
    own = dict(variables or {})
    files = with_package(chosen(folder), Path(__file__).parents[1])
    names = {file.name for file in files}
    inside = _inside(path, folder, names, what="the job file")
    argv = ("python", "-m", "startup_ray", verb, inside, *overrides(set), *flags)
    refuse_secrets(own, argv)
    require_lasting(job.storage, path)
    _require_manifest(job.ingest.manifest, path, folder, names)
    _require_code(job, names, folder)
    return Order(
        argv=argv,
        stem=f"{job.name}-{_key(job, verb, flags)}",
        files=tuple(files),
        variables={"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **own},
        needs=_needs(job) if verb in TRAINING else {},
    )


def overrides(set: Sequence[str]) -> list[str]:  # noqa: A002
    """The words of `--set`, for each key."""
    return [word for each in set for word in ("--set", each)]


def is_here(manifest: str) -> bool:
    """Whether it is a file that only this folder has: no URL, no sample, and no path that other machines may know."""
    return "://" not in manifest and not manifest.startswith(("sample:", "/"))


def variables_of(words: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for what this process has.

    Raises:
        UsageError: it is neither.
    """
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or (not sign and name not in env):
            raise UsageError(f"{name!r} is no variable that is set here", where="--env", hint="--env NAME=VALUE")
        found[name] = value if sign else env[name]
    return found


def _key(job: Job, verb: str, flags: Sequence[str]) -> str:
    plain = json.dumps([job.model_dump(mode="json"), verb, *flags], sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:8]


def _needs(job: Job) -> dict[str, float]:
    scaling = job.scaling
    workers = 1 if job.sweep is not None and job.sweep.trial == "slot" else scaling.min_workers
    gpus = {"GPU": workers * scaling.gpus_per_worker} if scaling.gpus_per_worker else {}
    return {"CPU": float(workers * scaling.threads_per_worker), **gpus}


def _inside(path: str, folder: Path, names: set[str], *, what: str) -> str:
    """Its name below the folder."""
    try:
        name = Path(path).resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        hint = "start the command in a folder that holds it"
        raise UsageError(f"{what} is not in the folder that is uploaded, {folder}", where=path, hint=hint) from None
    if name not in names:
        raise UsageError(f"{what} is left out of the upload", where=path, hint="see .gitignore and .rayignore")
    return name


def refuse_secrets(variables: Mapping[str, str], argv: Sequence[str]) -> None:
    """See that nothing of what the Jobs API tells everybody looks like a secret."""
    for name, value in variables.items():
        if _NAMES.search(name) or _VALUES.search(value):
            raise UsageError(
                "looks like a secret, and a job's variables are no secret", where=f"--env {name}", hint=_HINT
            )
    for word in argv:
        key, _, value = word.partition("=")
        if _VALUES.search(word) or (value and _NAMES.search(key)):
            raise UsageError("looks like a secret, and a job's command is no secret", where=key[:80], hint=_HINT)


def require_lasting(storage: str, path: str) -> None:
    """See that what is written there outlives the job."""
    if "://" not in storage and not storage.startswith("/"):
        raise JobError(
            f"storage: {storage}: a relative path is gone with the job",
            where=path,
            hint="--set storage=s3://... or gs://..., or an absolute path on a file system that all nodes share",
        )


def _require_manifest(manifest: str, path: str, folder: Path, names: set[str]) -> None:
    if not is_here(manifest):
        return
    place = folder / manifest
    if not place.exists():
        raise JobError(f"ingest.manifest: there is no {manifest}", where=path, hint=f"it is looked for in {folder}")
    if not place.is_dir():
        _inside(str(place), folder, names, what="the manifest")
        return
    for entry in walk(LocalTree(str(place))):
        if not entry.fault:
            _inside(str(place / entry.name), folder, names, what="a file of the manifest")


def _require_code(job: Job, names: set[str], folder: Path) -> None:
    if not isinstance(job.model, PythonOptions):
        return
    code = locate(job.model.build)
    code.digest()
    below = code.module.replace(".", "/")
    local = [name for name in (f"{below}.py", f"{below}/__init__.py") if (folder / name).exists()]
    if local and not names & {*local}:
        raise UsageError("the model's module is left out of the upload", where=local[0], hint="see .rayignore")
