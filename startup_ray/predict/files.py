"""Image files of this machine: found in folders, read within bounds.

found = find_files(["photos"])        # Found(id='cats/1.jpg', path=Path('photos/cats/1.jpg'))
fetched = read_file(found[0], max_bytes=20_000_000)

Any file may be an image: its bytes decide. Left out is what is hidden. Law: no link leads out of its folder, and
whatever cannot be read is a value, with the state `bad_item` and a reason.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from startup_ray.errors import UsageError
from startup_ray.ingest.exchange import Fetched
from startup_ray.manifests.image_folders import text_of
from startup_ray.manifests.trees import LocalTree, open_regular, reason_of, walk


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that may be an image."""

    id: str
    path: Path
    fault: str = ""
    """Why it is not even read."""


def find_files(targets: Sequence[str]) -> list[Found]:
    """Files by id, each once. Of a single folder ids are paths below it, else paths as they were given.

    Raises:
        UsageError: there is nothing at a path.
    """
    found: dict[Path, Found] = {}
    for target in targets:
        root = Path(os.path.normpath(os.path.expanduser(target)))
        if root.is_dir():
            base = root if len(targets) == 1 else Path()
            for entry in walk(LocalTree(str(root))):
                path = root / entry.name
                name = os.path.relpath(path, base) if base.parts else str(path)
                found.setdefault(path, Found(id=text_of(name), path=path, fault=entry.fault))
        elif root.exists():
            found.setdefault(root, Found(id=text_of(str(root)), path=root))
        else:
            hint = "give a manifest, a folder, or image files"
            raise UsageError("no such file or folder", where=target, hint=hint)
    return sorted(found.values(), key=lambda file: file.id)


def read_file(found: Found, max_bytes: int) -> Fetched:
    """The bytes of a file, as if they had been fetched."""
    if found.fault:
        return Fetched(status="bad_item", reason=found.fault)
    try:
        with open_regular(os.path.realpath(found.path)) as stream:
            body = stream.read(max_bytes + 1)
    except OSError as error:
        return Fetched(status="bad_item", reason=reason_of(error))
    if len(body) > max_bytes:
        return Fetched(status="too_large", reason=f"more than {max_bytes} bytes", size=len(body))
    return Fetched(status="ok", body=body, size=len(body))
