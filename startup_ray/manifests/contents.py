"""What a manifest is read from: one list, a folder of lists, or a folder of images.

content = ListFile(stream, "csv", "cats.csv", ColumnOptions())
for value, place in content.values():      # a value for `items.parse_row`, and 'cats.csv:0'
    ...
content.digest()
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions
from startup_ray.manifests.forms import Form, Kind, form_of, name_of, scheme_of
from startup_ray.manifests.image_folders import SPLIT_NAMES, image_rows, line_of
from startup_ray.manifests.parquet_rows import ParquetTable
from startup_ray.manifests.rows import SHAPE, json_rows, jsonl_rows
from startup_ray.manifests.streams import Stream, as_manifest_error, open_seekable, open_stream, where_of
from startup_ray.manifests.tables import DELIMITERS, csv_rows, txt_rows
from startup_ray.manifests.trees import Entry, Tree, entry_at, url_of

_TABLE = "expected a line with the names of the columns, and rows"
_EXPECTED = {"json": SHAPE, "jsonl": SHAPE, "csv": _TABLE, "tsv": _TABLE, "txt": "expected a URL a line"}
_SPLIT = re.compile(r"[a-z]+")


class Content(Protocol):
    """What a manifest is read from."""

    expected: str
    """What there should have been, where there is no row."""

    def values(self) -> Iterator[tuple[Any, str]]:
        """Each row as a value (see `items.parse_row`), and its place; may be read once.

        Raises:
            ManifestError: it is not what its name says, or cannot be read to its end.
        """
        ...

    def digest(self) -> str:
        """`sha256:` and hex of what tells this content from any other."""
        ...


class ListFile:
    """A list that is read from its beginning to its end."""

    def __init__(self, stream: Stream, kind: Kind, location: str, columns: ColumnOptions) -> None:
        self._stream, self._kind, self._location, self._columns = stream, kind, location, columns
        self.expected = _EXPECTED[kind]

    def values(self) -> Iterator[tuple[Any, str]]:
        name = name_of(self._location)
        for number, value in enumerate(self._rows()):
            yield value, f"{name}:{number}"

    def digest(self) -> str:
        return self._stream.digest()

    def _rows(self) -> Iterator[Any]:
        where = where_of(self._location)
        if self._kind == "json":
            return json_rows(self._stream, where)
        if self._kind == "jsonl":
            return jsonl_rows(self._stream, where)
        if self._kind == "txt":
            return txt_rows(self._stream, self._columns)
        return csv_rows(self._stream, where, self._columns, DELIMITERS[self._kind])


class ParquetList:
    """A Parquet file, opened when it is first read, until the stack closes it.

    Args:
        entry: the file, if it is known already.
    """

    expected = "expected rows"

    def __init__(
        self, location: str, form: Form, columns: ColumnOptions, stack: ExitStack, entry: Entry | None = None
    ) -> None:
        self._location, self._form, self._columns, self._stack = location, form, columns, stack
        self._entry = entry
        self._opened: tuple[Any, ParquetTable] | None = None

    def values(self) -> Iterator[tuple[Any, str]]:
        yield from self._open()[1].rows()

    def digest(self) -> str:
        file, table = self._open()
        if table.holds_images and self._entry is not None:
            return _digest([self._entry])
        file.seek(0)
        digest = hashlib.sha256()
        with as_manifest_error(self._location):
            while block := file.read(1 << 20):
                digest.update(block)
        return f"sha256:{digest.hexdigest()}"

    def _open(self) -> tuple[Any, ParquetTable]:
        if self._opened is None:
            file = self._stack.enter_context(open_seekable(self._location, is_packed=self._form.is_packed))
            self._opened = file, self._table(file)
        return self._opened

    def _table(self, file: Any) -> ParquetTable:
        where, is_remote = where_of(self._location), scheme_of(self._location) in ("http", "https")
        if not is_remote and self._entry is None:
            with as_manifest_error(self._location):
                self._entry = entry_at(self._location)
        changed = self._entry.changed_ns if self._entry else 0
        table = ParquetTable(file, url_of(self._location), self._columns, where=where, changed=changed)
        if table.holds_images and (is_remote or self._form.is_packed):
            hint = "download it first" if is_remote else "unpack it first"
            raise ManifestError("this Parquet file holds images, which are read where they lie", where=where, hint=hint)
        return table


class ListFolder:
    """The lists at the top of a folder as one.

    Where the names of all begin with a split (`train-00000-of-00002.parquet`, `test.csv`), and not all with the same
    one, it is that of the rows without a split of their own.
    """

    expected = "expected rows in at least one of these lists"

    def __init__(self, tree: Tree, entries: Sequence[Entry], columns: ColumnOptions, where: str) -> None:
        self._tree, self._columns = tree, columns
        forms = {entry: form_of(entry.name) for entry in entries}
        self._forms = {entry: form for entry, form in forms.items() if form is not None}
        kinds = sorted({form.kind for form in self._forms.values()})
        if len(kinds) > 1:
            hint = "name one of them, or give each form a folder of its own"
            raise ManifestError(f"lists of several forms: {', '.join(kinds)}", where=where, hint=hint)
        for entry in self._forms:
            if entry.fault:
                raise ManifestError(entry.fault, where=where_of(tree.location(entry.name)))
        self._splits = _splits_of([entry.name for entry in self._forms])

    def values(self) -> Iterator[tuple[Any, str]]:
        for entry, form in self._forms.items():
            split, column = self._splits.get(entry.name), self._columns.split
            with ExitStack() as stack:
                for value, place in self._open(entry, form, stack).values():
                    if split and column and isinstance(value, dict) and value.get(column) is None:
                        value[column] = split
                    yield value, place

    def digest(self) -> str:
        return _digest(self._forms)

    def _open(self, entry: Entry, form: Form, stack: ExitStack) -> Content:
        location = self._tree.location(entry.name)
        if form.kind == "parquet":
            return ParquetList(location, form, self._columns, stack, entry)
        stream = stack.enter_context(open_stream(location, is_packed=form.is_packed))
        return ListFile(stream, form.kind, location, self._columns)


class ImageFolder:
    """A folder of images. Of the names of columns it minds one: without `split`, no folder is one."""

    expected = "expected images; hidden files are left out, and so are lists: name the folder that they lie in"

    def __init__(self, tree: Tree, columns: ColumnOptions, where: str) -> None:
        self._hash = hashlib.sha256()
        self._where, self._has_splits = where, columns.split is not None
        self._rows = image_rows(tree, self._hash.update)

    def values(self) -> Iterator[tuple[Any, str]]:
        with as_manifest_error(self._where):
            for value, item_id in self._rows:
                if not self._has_splits and isinstance(value, dict):
                    value["split"] = None
                yield value, item_id

    def digest(self) -> str:
        for _ in self.values():
            pass
        return f"sha256:{self._hash.hexdigest()}"


def _splits_of(names: Sequence[str]) -> dict[str, str]:
    words = {name: match[0] if (match := _SPLIT.match(name.lower())) else "" for name in names}
    splits = {name: SPLIT_NAMES[word] for name, word in words.items() if word in SPLIT_NAMES}
    return splits if len(splits) == len(names) and len(set(splits.values())) > 1 else {}


def _digest(entries: Iterable[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(line_of(entry))
    return f"sha256:{digest.hexdigest()}"
