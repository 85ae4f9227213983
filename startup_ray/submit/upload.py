"""What of a folder goes to a cluster: a zip that is the same for the same files, and nothing that must not leave.

    files = chosen(Path.cwd())
    name, data = packed(files)          # "_ray_pkg_<digest>.zip", for `gcs://NAME`

Rules are those of Ray's own upload: `.gitignore` and `.rayignore`, in each folder for what is below it. On top of them
come the names below, which Ray would take.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from startup_ray.errors import UsageError

MAX_BYTES = 100 * 1024 * 1024
"""Of all files before they are packed; Ray takes 512 MiB, which nobody should wait for."""
IGNORE_FILES = (".gitignore", ".rayignore")
SECRETS = (
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".aws/",
    ".ssh/",
    ".kube/",
    ".gnupg/",
    ".config/gcloud/",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.kdbx",
    "auth_token",
    "*.token",
    "token.txt",
    "credentials",
    "credentials.json",
    "credentials.y*ml",
    "credentials.csv",
    "credentials.ini",
    "service-account*.json",
    "service_account*.json",
)
NOT_NEEDED = (
    ".git/",
    ".hg/",
    ".svn/",
    ".venv/",
    "venv/",
    "node_modules/",
    "__pycache__/",
    "*.pyc",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
    ".ipynb_checkpoints/",
    "*.tfrecord",
    "*.tfrecords",
    ".DS_Store",
)
_OURS = ("dataset.json", "ledger")
"""A folder with both is a dataset, which lies on storage that the cluster reads."""
_NEVER = GitIgnoreSpec.from_lines([*SECRETS, *NOT_NEEDED])
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell


@dataclass(frozen=True)
class File:
    path: Path
    name: str
    """Below the working directory of the job, with `/`."""
    size: int


def chosen(folder: Path, *, max_bytes: int = MAX_BYTES) -> list[File]:
    """All files of a folder that no rule leaves out, by name; links that lead out of it are left out as well.

    Raises:
        UsageError: they are more than `max_bytes`; with the largest.
    """
    root = folder.resolve()
    files = sorted(_walk(root, root, []), key=lambda file: file.name)
    total = sum(file.size for file in files)
    if total > max_bytes:
        largest = sorted(files, key=lambda file: -file.size)[:5]
        shown = ", ".join(f"{file.name} ({megabytes(file.size)})" for file in largest)
        raise UsageError(
            f"{megabytes(total)} would be uploaded, the limit is {megabytes(max_bytes)}",
            where=str(root),
            hint=f"name what the job does not read in .rayignore; the largest: {shown}",
        )
    return files


def with_package(files: Sequence[File], package: Path) -> list[File]:
    """These, and this package as it is installed here, unless the folder is where it is developed."""
    if any(file.name == f"{package.name}/__init__.py" for file in files):
        return list(files)
    own = [File(file.path, f"{package.name}/{file.name}", file.size) for file in chosen(package)]
    return [*files, *own]


def packed(files: Iterable[File]) -> tuple[str, bytes]:
    """The name, which tells the content, and the zip."""
    buffer = io.BytesIO()
    digest = hashlib.sha256()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files, key=lambda file: file.name):
            data = file.path.read_bytes()
            info = zipfile.ZipInfo(file.name, _EPOCH)
            is_program = os.access(file.path, os.X_OK)
            info.external_attr = (0o755 if is_program else 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
            for part in (file.name.encode(), b"x" if is_program else b"-", hashlib.sha256(data).digest()):
                digest.update(part + b"\0")
    return f"_ray_pkg_{digest.hexdigest()[:32]}.zip", buffer.getvalue()


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _walk(folder: Path, root: Path, rules: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[File]:
    rules = [*rules, *((folder, spec) for spec in _specs(folder))]
    entries = sorted(folder.iterdir())
    if folder != root and {*_OURS} <= {entry.name for entry in entries}:
        return
    for entry in entries:
        is_folder = entry.is_dir()
        if entry.is_symlink() and (is_folder or root not in entry.resolve().parents):
            continue
        if _is_left_out(entry, is_folder, root, rules):
            continue
        if is_folder:
            yield from _walk(entry, root, rules)
        elif entry.is_file():
            yield File(entry, entry.relative_to(root).as_posix(), entry.stat().st_size)


def _specs(folder: Path) -> Iterator[GitIgnoreSpec]:
    for name in IGNORE_FILES:
        path = folder / name
        if path.is_file():
            yield GitIgnoreSpec.from_lines(path.read_text("utf-8", errors="replace").splitlines())


def _is_left_out(entry: Path, is_folder: bool, root: Path, rules: Sequence[tuple[Path, GitIgnoreSpec]]) -> bool:
    end = "/" if is_folder else ""
    if _NEVER.match_file(entry.relative_to(root).as_posix() + end):
        return True
    return any(spec.match_file(entry.relative_to(base).as_posix() + end) for base, spec in rules)
