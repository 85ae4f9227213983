"""The errors a user can meet, each with the exit code of the command that meets it.

    StartupRayError              1   anything below, or a fault of ours
    ├── UsageError               2   a command that cannot be carried out as written
    │   ├── JobError             2   a job file, or a `--set`, that does not hold
    │   └── ManifestError        2   a manifest that cannot be read at all
    ├── DataError                3   the data is below the threshold asked for
    ├── TrainingError            4   training failed or diverged
    ├── ClusterError             5   Ray, or what it was asked for, is not to be had
    │   ├── LostError            5   nobody answers where a cluster should be
    │   ├── ExistsError          5   a cluster has a job with this id
    │   └── StorageError         5   storage cannot be read or written
    │       └── RunHeldError     5   another process is writing the same folder
    └── GateError                6   a model that is worse than the job demands

130 is for an interrupt (Ctrl-C). Errors pickle with their fields, because they cross processes.
"""

from __future__ import annotations

from typing import Any

INTERRUPTED = 130


class StartupRayError(Exception):
    """What went wrong, where, and the way out.

    Args:
        message: one line without a full stop, in the user's words.
        where: the place to look at: `jobs/x.yaml:7`, a path, a URL.
        hint: what to do about it, a command if there is one.
        result: the document of a stage that failed only by its threshold (exit code 3), for `--json`.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "", result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.where, self.hint, self.result)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        way_out = f"\n  {self.hint}" if self.hint else ""
        return f"{place}{self.message}{way_out}"

    def document(self) -> dict[str, Any]:
        """The error as `--json` prints it: `{"error": {"kind", "message", "where", "hint"}}`."""
        kind = type(self).__name__
        fields = {"kind": kind, "message": self.message, "where": self.where, "hint": self.hint}
        return {"error": fields} | ({"result": self.result} if self.result is not None else {})


def first_line(error: BaseException) -> str:
    """The first line of what an error of somebody else says, or its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]


def _rebuild(
    kind: type[StartupRayError], message: str, where: str, hint: str, result: dict[str, Any] | None
) -> StartupRayError:
    return kind(message, where=where, hint=hint, result=result)


class UsageError(StartupRayError):
    exit_code = 2


class JobError(UsageError):
    """`message` holds every problem of the file, one a line, each with its own place."""


class ManifestError(UsageError):
    pass


class DataError(StartupRayError):
    exit_code = 3


class TrainingError(StartupRayError):
    exit_code = 4


class ClusterError(StartupRayError):
    exit_code = 5


class LostError(ClusterError):
    """Later somebody may answer."""


class ExistsError(ClusterError):
    pass


class StorageError(ClusterError):
    pass


class RunHeldError(StorageError):
    pass


class GateError(StartupRayError):
    exit_code = 6
