"""The folder that an export is written to: whole, ours, or left alone.

    target = Target(out, identity, ours)
    if document := target.finished(): ...
    target.begin(fresh=False)
    target.put("train-000000.tar", data, images=512)
    target.finish({"made_by": ...})

Laws: an export counts only with its last file, `export.json`; files of an export that did not end are written anew; a
folder that holds anything else is refused before a byte is written or deleted.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from startup_ray.errors import UsageError
from startup_ray.runs import put_json, read_json
from startup_ray.storage import Folder

DONE = "export.json"
BEGUN = "unfinished.json"
"""Says whose the files are, until they are whole."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an export is written."""

    folder: Folder
    identity: Mapping[str, Any]
    """What makes two exports the same, as JSON values."""
    ours: re.Pattern[str]
    """Matches what any export has at the top of its folder."""
    files: list[dict[str, Any]] = field(default_factory=list)
    """What was put so far: file, bytes, sha256, images; without those of `put_many`."""
    put_so_far: Counter[str] = field(default_factory=Counter)
    """`count` of all files, and their `bytes`."""

    def finished(self) -> dict[str, Any]:
        """`export.json`, if it tells of this same export and its files are there; else empty."""
        found = read_json(self.folder, DONE)
        if not found or not self._is_same(found):
            return {}
        # All files in one call. More bytes than ours may be somebody's notes, fewer are a loss.
        wanted = found["bytes"] + len(self.folder.read(DONE))
        return found if self.folder.usage()[0] >= wanted else {}

    def begin(self, *, fresh: bool) -> None:
        """Make the folder ours, and empty.

        Raises:
            UsageError: it holds something else, or another export and `fresh` is not asked for.
        """
        names = [name for name in self.folder.list() if name not in (DONE, BEGUN)]
        before = read_json(self.folder, DONE) or read_json(self.folder, BEGUN)
        strangers = names if not before.get("to") else [name for name in names if not self.ours.fullmatch(name)]
        if strangers:
            hint = "name a folder that is not there yet: --out"
            raise UsageError(f"this folder holds something else: {strangers[0]!r}", where=str(self.folder), hint=hint)
        if before and not self._is_same(before) and not fresh:
            hint = "--fresh replaces it, --out writes elsewhere"
            raise UsageError("another export is in this folder", where=str(self.folder), hint=hint)
        put_json(self.folder, BEGUN, dict(self.identity))  # before what it claims is touched
        self.folder.delete(DONE)
        for name in names:
            self.folder.delete(name)

    def put(self, name: str, data: bytes, *, images: int = 0) -> None:
        """Write a file whole, and note it."""
        self.folder.put_whole(name, data)
        digest = hashlib.sha256(data).hexdigest()
        self.files.append({"file": name, "bytes": len(data), "sha256": digest, "images": images})
        self.put_so_far.update(count=1, bytes=len(data))

    def put_many(self, files: Sequence[tuple[str, bytes]], pool: Executor) -> None:
        """Write small files side by side, and only count them: a list of them is the form's own."""
        for _ in pool.map(self.folder.put_whole, *zip(*files, strict=True)):
            pass
        self.put_so_far.update(count=len(files), bytes=sum(len(data) for _, data in files))

    def finish(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write `export.json`, which is returned."""
        files = sorted(self.files, key=lambda file: str(file["file"]))
        whole = {**self.identity, **document, **self.put_so_far, "files": files}
        put_json(self.folder, DONE, whole)
        self.folder.delete(BEGUN)
        return whole

    def _is_same(self, found: Mapping[str, Any]) -> bool:
        return all(found.get(name) == value for name, value in self.identity.items())
