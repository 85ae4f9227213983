"""Rows of tables in text: CSV, TSV, and lists of URLs, with bounded memory and time whatever the bytes hold.

    for value in csv_rows(stream, where="cats.csv", columns=ColumnOptions()):    # {"id": "7", "url": ...}, or NoRow
        ...

The `csv` module reads the dialect: RFC 4180, with fields of several lines. What it cannot know is where a quote that
is never closed should have ended: then the lines that it has swallowed are read again, each by itself. So a fault costs
its own line, and no line is read more than twice.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions
from startup_ray.items import NoRow, known_names
from startup_ray.manifests.rows import MAX_ROW, read_line, skip_mark

DELIMITERS = {"csv": ",", "tsv": "\t"}

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d{1,17})?([eE][+-]?\d{1,2})?")
"""A number of JSON that Python and JSON tell alike."""


def csv_rows(stream: io.BufferedReader, where: str, columns: ColumnOptions, delimiter: str = ",") -> Iterator[Any]:
    """Rows of a table with a header; empty fields are None.

    Raises:
        ManifestError: no header, or not the columns that are asked for.
    """
    skip_mark(stream)
    lines = _Lines(stream)
    header = next(_records(lines, delimiter, 0), None)
    if isinstance(header, NoRow):
        raise ManifestError(f"no table: {header.reason}", where=where)
    if header is not None:
        names = [name.strip() for name in header]
        require_columns(names, columns, where)
        texts = known_names(columns)
        for record in _records(lines, delimiter, len(names)):
            yield record if isinstance(record, NoRow) else _row(names, record, texts)


def txt_rows(stream: io.BufferedReader, columns: ColumnOptions) -> Iterator[Any]:
    """The lines of a list of URLs; empty ones are none."""
    skip_mark(stream)
    lines = _Lines(stream)
    for line in lines:
        if lines.fault:
            yield NoRow(lines.fault)
        elif text := line.strip():
            yield {columns.url: text}
        lines.begin()


def require_columns(
    names: Sequence[str], columns: ColumnOptions, where: str, *, has_images: bool | None = None
) -> None:
    """See that a table has the columns that are asked for: all that were given a name, and that of the URLs.

    Args:
        has_images: it holds images itself, so it needs no URLs; None of a table that cannot.

    Raises:
        ManifestError: one is missing, or two have the same name.
    """
    for name, times in Counter(filter(None, names)).items():
        if times > 1:
            raise ManifestError(f"{times} columns are called {name[:64]!r}", where=where)
    usual = dict(ColumnOptions())
    asked = {key: name for key, name in columns if name is not None and name != usual[key]}
    if not has_images:
        asked.setdefault("url", columns.url)
    for key, name in asked.items():
        if name not in names:
            may_be_images = key == "url" and has_images is False
            raise _missing(key, name, names, where, may_be_images=may_be_images)


def _missing(key: str, name: str, names: Sequence[str], where: str, *, may_be_images: bool) -> ManifestError:
    shown = [column[:64] for column in names if column][:20]
    close = difflib.get_close_matches(name, shown, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    other = ", or that of the images with `ingest.columns.image`" if may_be_images else ""
    hint = f"{guess}there are: {', '.join(shown)}; name it with `ingest.columns.{key}: NAME`{other}"
    return ManifestError(f"no column {name!r}", where=where, hint=hint)


def _row(names: Sequence[str], record: Sequence[str], texts: Collection[str]) -> dict[str, Any]:
    pairs = zip(names, record, strict=True)
    return {name: (text if name in texts else _value(text)) if text else None for name, text in pairs if name}


def _value(text: str) -> Any:
    """A field of the user's own: numbers as numbers, since JSON has them."""
    return json.loads(text) if _NUMBER.fullmatch(text) else text


def _records(lines: _Lines, delimiter: str, width: int) -> Iterator[list[str] | NoRow]:
    """Fields of each record, or a bad row for one line.

    Args:
        width: fields that a record must have; 0 for any number.
    """
    strict, lenient = (csv.reader(lines, delimiter=delimiter, strict=is_strict) for is_strict in (True, False))
    while True:
        is_again = lines.begin()
        try:
            record, fault = next(lenient if is_again else strict), lines.fault
        except StopIteration:
            return
        except csv.Error as error:
            record, fault = [], lines.fault or f"line {lines.first} is no row of a table: {error}"
            if not is_again:
                lines.retreat()
                continue
        if not fault and record and width and len(record) != width:
            fault = f"line {lines.first} has {len(record)} columns, not {width}"
            if lines.taken > 1:
                lines.retreat()
                continue
        if fault:
            yield NoRow(fault)
        elif record:
            yield record


class _Lines:
    """Lines of a file as text, which remembers those that the record at hand was made from."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._number = 0
        """Of the line handed out last, from 1."""
        self._taken: list[str | NoRow] = []
        self._size = 0
        """Characters of `_taken`."""
        self._again: deque[str | NoRow] = deque()
        self._is_again = False
        """Whether the record at hand began with a line that is read again."""
        self.fault = ""
        """Why the record at hand is none."""

    @property
    def taken(self) -> int:
        """Lines of the record at hand."""
        return len(self._taken)

    @property
    def first(self) -> int:
        """Number of the line where the record at hand begins."""
        return self._number - len(self._taken) + 1

    def begin(self) -> bool:
        """Begin with another record; whether it is a line that is read again."""
        self._taken.clear()
        self._size, self.fault = 0, ""
        self._is_again = bool(self._again)
        return self._is_again

    def retreat(self) -> None:
        """Have all lines of the record at hand read again, each as a record of its own."""
        self._number -= len(self._taken)
        self._again.extendleft(reversed(self._taken))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line; none, with a fault, if it would be one too many of a record."""
        is_inside = bool(self._taken)
        line = None if is_inside and (self._is_again or self._size > MAX_ROW) else self._next()
        if line is not None:
            self._number += 1
            self._taken.append(line)
        if isinstance(line, str):
            self._size += len(line)
            return line
        if is_inside:
            self.fault = f"line {self.first} has a quote that is never closed"
        if line is None or is_inside:
            raise StopIteration
        self.fault = line.reason
        return "\n"

    def _next(self) -> str | NoRow | None:
        if self._again:
            return self._again.popleft()
        line = read_line(self._stream)
        if line is None:
            return NoRow(f"the row of line {self._number + 1} is longer than {MAX_ROW} bytes")
        try:
            return line.decode() if line else None
        except UnicodeDecodeError:
            return NoRow(f"line {self._number + 1} is not UTF-8")
