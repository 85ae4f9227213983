"""What was forgotten: digests by which a storage keeps pictures out of every later ingest.

    listed = read_forgotten(folder)                         # for the dataset in this folder
    listed.takes(item_id="7", url="https://e.com/7.jpg")    # True: neither fetched nor kept
    listed.takes(sha256=digest_of_the_body)                 # True: the same picture under another id and URL

`<storage>/forgotten/<16 hex>.json` is one request each: per word the marks of what it named, and who had seen it. A URL
and a body are the same picture in all datasets of a storage; an id only in the datasets of one job's manifest, however
often it is ingested afresh, because every manifest may have a row called 7.

Marks are sha256 of what they stand for, with its kind before it; of a body of its sha256, which itself would say that
we have had it. They hold no salt: whoever can read the list could read a salt beside it, and an ingest must be able to
ask. So a mark does not tell an id or a URL, but whoever guesses one can see that it was forgotten.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from startup_ray.errors import StorageError
from startup_ray.ledger import FORGOTTEN, Outcome, portless, redact
from startup_ray.runs import put_json
from startup_ray.storage import Folder

LIST = "forgotten"

_SERIES = re.compile(r"(.*-[0-9a-f]{8})-\d{1,7}")
"""Name of a dataset that was ingested afresh (see `runs.Series`); eight digits are a key, behind a name with a date."""
_STATE = re.compile(r"#changed=\d+\Z")
"""When a file was changed, which stands behind its URL; of a row of a Parquet file it says which row that is."""


@dataclass(frozen=True)
class Forgotten:
    """What is kept out of one dataset; it pickles."""

    scope: str = ""
    """In which ids are one manifest's."""
    marks: frozenset[str] = frozenset()

    def takes(self, *, item_id: str = "", url: str = "", sha256: str | None = None) -> bool:
        """Whether an item of this id, at this URL or with this body was forgotten."""
        return bool(self.marks) and not self.marks.isdisjoint(
            marks_of(self.scope, item_id=item_id, url=url, sha256=sha256)
        )

    def __bool__(self) -> bool:
        return bool(self.marks)


NOTHING = Forgotten()


def marks_of(scope: str, *, item_id: str = "", url: str = "", sha256: str | None = None) -> set[str]:
    """Marks of an item, as many as it has; the URL raw or as the ledger shows it."""
    told = {"id": f"{scope}/{item_id}" if item_id else "", "url": url_of(url), "body": sha256 or ""}
    texts = [f"{kind}:{text}" for kind, text in told.items() if text]
    return {hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts}


def known_url(url: str) -> str:
    """The URL as the ledger shows it, without its port, and whatever state a file is in."""
    return _STATE.sub("", portless(redact(url)))


def url_of(url: str) -> str:
    """The URL by which a picture is known, or nothing where many may share it.

    They do if all that tells them apart is a secret, which no ledger holds, or if it is a Parquet file as a whole.
    """
    known = known_url(url)
    return "" if "REDACTED" in known or known.endswith(".parquet") else known


def scope_of(folder: Folder) -> str:
    """The datasets among which an item is known by its id: those of one name and key."""
    found = _SERIES.fullmatch(folder.name)
    return found[1] if found else folder.name


def home_of(folder: Folder) -> Folder:
    """Where the list for a dataset lies: in its storage, or beside its own files if it lies in none."""
    return (folder.parent.parent if folder.parent.name == "datasets" else folder) / LIST


def read_forgotten(folder: Folder) -> Forgotten:
    """What is kept out of the dataset in this folder.

    Raises:
        StorageError: the list cannot be read.
    """
    marks = (mark for _, request in requests_in(home_of(folder)) for word in request["words"] for mark in word)
    return Forgotten(scope_of(folder), frozenset(marks))


def requests_in(home: Folder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and document of each request: `{"made", "words": [[mark, ...], ...], "seen_by": [...]}`.

    Raises:
        StorageError: one cannot be read, and what it forbids must not come back for that.
    """
    for name in home.list():
        if name.endswith(".json"):
            yield name, _read_request(home, name)


def add_request(home: Folder, words: Iterable[Collection[str]], seen_by: Sequence[Mapping[str, Any]], made: str) -> str:
    """Keep out what has these marks from now on; returns the name of the request.

    Its name is made from the marks, so that the same request made again replaces itself.
    """
    marks = sorted(sorted(word) for word in words)
    name = f"{hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16]}.json"
    put_json(home, name, {"made": made, "words": marks, "seen_by": list(seen_by)})
    return name


def drop_marks(home: Folder, marks: Collection[str]) -> int:
    """Let in again all that any of these marks stands for; returns for how many words there was something to drop."""
    dropped = 0
    for name, request in list(requests_in(home)):
        left = [word for word in request["words"] if not set(word) & set(marks)]
        dropped += len(request["words"]) - len(left)
        if not left:
            home.delete(name)
        elif len(left) < len(request["words"]):
            put_json(home, name, request | {"words": left})
    return dropped


def forgotten_outcome(item_id: str) -> Outcome:
    """All that the ledger keeps. An id that is a URL is what must go."""
    return Outcome(id="" if "://" in item_id else item_id, url="", status=FORGOTTEN)


def _read_request(home: Folder, name: str) -> dict[str, Any]:
    try:
        request = json.loads(home.read(name))
        is_whole = all(isinstance(mark, str) for word in request["words"] for mark in word)
    except FileNotFoundError:  # let in again this very moment
        return {"made": "", "words": [], "seen_by": []}
    except (ValueError, TypeError, KeyError):
        is_whole = False
    if not is_whole:
        hint = "bring it back from a copy: without it what was forgotten would be fetched again"
        raise StorageError("this part of the list of what was forgotten is damaged", where=home.path(name), hint=hint)
    found: dict[str, Any] = request
    return found
