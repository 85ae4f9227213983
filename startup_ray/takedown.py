"""Forgetting in a whole storage: what words name, who has seen it, and its removal from every dataset.

    takedown = look_up(["7", "https://e.com/8.jpg"], storage="runs")    # reads only
    takedown.holdings                                                   # (Holding(folder=..., items=('7', '8')),)
    done = carry_out(takedown, made="2031-05-04T10:00:00Z")

A word is an id or a URL. With it goes what is the same picture in any dataset of the storage: the same URL, and the
same body under whatever id and URL (see `ingest.naming`). Laws: a dataset at work stops it before anything is changed;
done again it changes nothing, and still names what has seen it; what an ingest has ended with since it was looked up
goes too, and an ingest that has not ended sees the list at its end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from startup_ray.errors import RunHeldError, UsageError
from startup_ray.forgotten import (
    LIST,
    Forgotten,
    add_request,
    drop_marks,
    home_of,
    read_forgotten,
    requests_in,
    scope_of,
)
from startup_ray.ingest.forget import erase, held, is_set_aside, restore, set_aside
from startup_ray.ingest.naming import Marks, add_bodies, marks_of_word, marks_of_words
from startup_ray.inventory import Entry, entries
from startup_ray.lease import Fence, hold
from startup_ray.ledger import redact
from startup_ray.runs import DATASET, read_json
from startup_ray.seen import still_there, witnesses
from startup_ray.storage import Folder, open_folder
from startup_ray.trainers.cache import empty_cache, find_caches

CACHE = "cache"


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A dataset that holds something of it."""

    folder: Folder
    digest: str
    """Empty while it is unfinished."""
    items: tuple[str, ...]
    """Ids, in the order of the ledger."""


@dataclass(frozen=True, kw_only=True)
class Takedown:
    """What is to be forgotten, and where it is."""

    home: Folder
    """Of the list."""
    storage: str
    """Where runs were looked for."""
    words: tuple[frozenset[str], ...]
    """Marks of each word that is not listed yet."""
    holdings: tuple[Holding, ...]
    seen_by: tuple[dict[str, Any], ...]

    def document(self, *, is_done: bool) -> dict[str, Any]:
        """What `forget --json` prints."""
        found = [{"dataset": str(at.folder), "items": list(at.items), "digest": at.digest} for at in self.holdings]
        return {"forgotten" if is_done else "would_forget": found, "seen_by": list(self.seen_by)}


def look_up(
    words: Sequence[str], *, storage: str, dataset: Folder | None = None, ignore_missing: bool = False
) -> Takedown:
    """Find what words name; changes nothing.

    Args:
        dataset: where they are looked up, every dataset of the storage by default. It may lie in none.
        ignore_missing: leave out words that nothing is called by.

    Raises:
        UsageError: nothing is called so, or a URL tells no picture from others.
        RunHeldError: a run is learning from one of the datasets.
        StorageError: storage cannot be read.
    """
    found = entries(storage)
    home, folders = _place(found, storage, dataset)
    listed = {mark for _, request in requests_in(home) for word in request["words"] for mark in word}
    marks = marks_of_words(words, [dataset] if dataset else folders)
    _require_known([word for word in words if not ignore_missing], marks, listed, folders, storage)
    add_bodies(marks, folders)
    new = tuple(frozenset(marks[word]) for word in marks if not marks[word] <= listed)
    everything = frozenset(listed.union(*new))
    holdings, seen_by = [], _seen_before(home, words, marks, folders)
    for folder in folders:
        items = held(folder, Forgotten(scope_of(folder), everything))
        if items or is_set_aside(folder):
            _require_unused(folder, found)
            digest = read_json(folder, DATASET).get("digest", "")
            holdings.append(Holding(folder=folder, digest=digest, items=tuple(items)))
            seen_by += [witness.document() for witness in witnesses(folder, items, found)]
            seen_by += [_cache(folder.name, str(place)) for place in find_caches(folder.name)]
    unique = {(one["kind"], one["path"]): one for one in seen_by}
    holding, seeing = tuple(holdings), tuple(unique.values())
    return Takedown(home=home, storage=storage, words=new, holdings=holding, seen_by=seeing)


def carry_out(takedown: Takedown, *, made: str) -> Takedown:
    """Forget it: list it, take it out of every dataset, clear this node's caches of them.

    Killed at any moment and done again, from `look_up` on, it ends the same.

    Args:
        made: when, for the list.

    Returns:
        The same with the digests that the datasets have now.

    Raises:
        RunHeldError: a process is at work in one of the datasets, or learns from it; nothing is changed. Or one has
            just begun in a dataset that came meanwhile: done again, it goes on there.
        StorageError: storage cannot be written.
    """
    with ExitStack() as stack:
        fences = {at.folder: stack.enter_context(hold(at.folder)).fence for at in takedown.holdings}
        found = entries(takedown.storage)
        for folder in fences:
            _require_unused(folder, found)  # a run may have begun since
        for folder in fences:
            set_aside(folder)
        if takedown.words:
            lasting = [one for one in takedown.seen_by if one["kind"] != CACHE]
            add_request(takedown.home, takedown.words, lasting, made)
        for place in [one["path"] for one in takedown.seen_by if one["kind"] == CACHE]:
            empty_cache(Path(place))
        done = [_take_out(at, fences[at.folder]) for at in takedown.holdings]
    late = tuple(_take_out_late(takedown.home, fences))
    return replace(takedown, holdings=(*done, *late))


def undo(words: Sequence[str], *, storage: str, dataset: Folder | None = None) -> int:
    """Let in again what these words stand for on the list; returns for how many of its words.

    Raises:
        UsageError: one stands for nothing on it; the others are let in.
    """
    home, folders = _place(entries(storage), storage, dataset)
    dropped = [(word, drop_marks(home, marks_of_word(word, folders))) for word in words]
    for word, number in dropped:
        if not number:
            raise UsageError(f"{redact(word)!r} was not forgotten", where=str(home), hint="try its id, or its URL")
    return sum(number for _, number in dropped)


def _take_out(at: Holding, fence: Fence) -> Holding:
    erase(at.folder, read_forgotten(at.folder), fence)
    return replace(at, digest=restore(at.folder, fence))


def _take_out_late(home: Folder, done: Collection[Folder]) -> Iterator[Holding]:
    """Of the other datasets of a list what holds something of it by now."""
    datasets = home.parent / "datasets"
    for folder in [home.parent, *(datasets / name for name in datasets.list())]:
        if folder in done or home_of(folder) != home or not (items := held(folder, read_forgotten(folder))):
            continue
        try:
            with hold(folder) as lease:
                set_aside(folder)
                for place in find_caches(folder.name):
                    empty_cache(place)
                yield _take_out(Holding(folder=folder, digest="", items=tuple(items)), lease.fence)
        except RunHeldError:
            if folder.exists(DATASET):  # else an ingest is at work, which sees the list after its last file
                raise


def _place(found: Sequence[Entry], storage: str, dataset: Folder | None) -> tuple[Folder, list[Folder]]:
    """Where the list lies, and the datasets that it is for."""
    folders = [entry.folder for entry in found if entry.kind == "dataset"]
    if dataset is None or dataset in folders:
        return open_folder(storage) / LIST, folders
    return home_of(dataset), [dataset]


def _require_known(
    words: Sequence[str], marks: Marks, listed: set[str], folders: Sequence[Folder], storage: str
) -> None:
    unknown = [word for word in words if word not in marks and not marks_of_word(word, folders) & listed]
    if unknown:
        told = ", ".join(repr(redact(word)) for word in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        hint = "an id or a URL as the manifest has it; --ignore-missing leaves out what is not there"
        raise UsageError(f"no dataset holds {told}", where=storage, hint=hint)


def _require_unused(folder: Folder, found: Sequence[Entry]) -> None:
    """What a run at work has in its memory it goes on learning from."""
    for entry in found:
        if entry.has_seen(folder) and entry.state == "running":
            message = f"{entry.owner} is learning from this dataset, in {entry.name}"
            raise RunHeldError(message, where=str(folder), hint="stop it first")


def _seen_before(home: Folder, words: Sequence[str], marks: Marks, folders: Sequence[Folder]) -> list[dict[str, Any]]:
    """Who has seen what was asked for before, as far as it is still there."""
    asked = {mark for word in words for mark in (marks.get(word) or marks_of_word(word, folders))}
    found = [request for _, request in requests_in(home) if any(asked & set(word) for word in request["words"])]
    return [one for request in found for one in request["seen_by"] if still_there(one)]


def _cache(name: str, path: str) -> dict[str, Any]:
    return {"kind": CACHE, "name": name, "path": path, "splits": []}
