"""What a word names, as marks: the items of this id or URL, and the same pictures in other datasets.

    marks = marks_of_words(["7", "https://e.com/8.jpg"], datasets)      # {'7': {'1f...', ...}, ...}
    add_bodies(marks, datasets)

A body counts only if it became an image, for a server's page of errors is one body for many items. A row that is no
item because its id stands earlier tells nothing of the picture that has this id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from startup_ray.errors import UsageError
from startup_ray.forgotten import known_url, marks_of, scope_of, url_of
from startup_ray.ingest.forget import Row, rows_in
from startup_ray.ledger import SUCCESS, redact
from startup_ray.storage import Folder

Marks = dict[str, set[str]]
"""Of each word that is known."""


def marks_of_words(words: Sequence[str], folders: Sequence[Folder]) -> Marks:
    """Marks of the items that have these ids or URLs, in any of the datasets.

    Raises:
        UsageError: several items have such a URL, because what tells them apart is a secret.
    """
    marks: Marks = defaultdict(set)
    ids = set(words)
    urls: dict[str, list[str]] = defaultdict(list)
    for word in [word for word in words if "://" in word]:
        urls[known_url(word)].append(word)
    vague: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for row in rows_in(folder):
            if row.item_id in ids:
                marks[row.item_id] |= _own_marks(scope_of(folder), row, by_id=True)
            for word in urls.get(known_url(row.url), ()) if urls else ():
                marks[word] |= _own_marks(scope_of(folder), row, by_id=False)
                vague[word] |= set() if url_of(word) else {row.item_id}
    for word, names in vague.items():
        if len(names) > 1:
            hint = f"give the ids of those that are meant: {', '.join(map(repr, sorted(names)[:5]))}, ..."
            raise UsageError(f"{len(names)} items have this URL, as far as it is known", where=redact(word), hint=hint)
    return marks


def add_bodies(marks: Marks, folders: Sequence[Folder]) -> None:
    """What other datasets have at the same URLs, or ids: their bodies go with it too."""
    words_of = defaultdict(set)
    for word, found in marks.items():
        for mark in found:
            words_of[mark].add(word)
    for folder in folders if words_of else ():
        scope = scope_of(folder)
        for row in rows_in(folder):
            if row.status in SUCCESS:
                body = marks_of(scope, sha256=row.sha256)
                for mark in marks_of(scope, item_id=row.item_id, url=row.url) & words_of.keys():
                    for word in words_of[mark]:
                        marks[word] |= body


def marks_of_word(word: str, folders: Sequence[Folder]) -> set[str]:
    """What a word alone stands for on the list: an id in each dataset, or a URL."""
    ids = {mark for folder in folders for mark in marks_of(scope_of(folder), item_id=word)}
    return ids | (marks_of("", url=word) if "://" in word else set())


def _own_marks(scope: str, row: Row, *, by_id: bool) -> set[str]:
    if row.status == "bad_item":  # its id may be another's
        return marks_of(scope, item_id=row.item_id) if by_id else marks_of(scope, url=row.url, sha256=row.sha256)
    sha256 = row.sha256 if row.status in SUCCESS else None
    return marks_of(scope, item_id=row.item_id, url=row.url, sha256=sha256)
