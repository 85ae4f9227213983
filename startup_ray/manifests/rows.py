"""From the bytes of a manifest to JSON values, one at a time, with bounded memory and time whatever the bytes hold.

    for value in json_rows(stream, where="cats.json"):     # a value, or NoRow for a row that could not be parsed
        ...

`json` parses each row, and here only the ends of rows are found: a parser of whole files would have to trust the
file with its longest string, its longest number and its deepest nesting. What is between the rows must be JSON, or
the rest of the file cannot be read; within a row, a fault costs that row alone, as in `.jsonl`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from startup_ray.errors import ManifestError
from startup_ray.items import NoRow

MAX_ROW = 1 << 20
"""Bytes of one row; in `.jsonl` with the blanks of its line."""
SHAPE = 'expected {"items": [{"id": ..., "url": ...}, ...]}, a list of such objects, or one object a line (.jsonl)'

_READ = 1 << 16
_BLANKS = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb'[^][{}",: \t\n\r]*+')
_LETTERS = re.compile(rb'[^"\\]*+')
# Everything but brackets, whole strings included. The possessive forms never go back, so time is linear.
_CONTENT = re.compile(rb'(?:[^]["{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
# An object without brackets in it, and the comma behind it: the usual row in one match.
_FLAT_ROW = re.compile(rb"[ \t\n\r]*+(\{%b\})[ \t\n\r]*+," % _CONTENT.pattern, re.DOTALL)


def json_rows(stream: io.BufferedReader, where: str) -> Iterator[Any]:
    """Values of the list under `items`, or of the bare list, in a `.json` manifest.

    Raises:
        ManifestError: neither of the two, or not JSON around or in the first row, or between the rows.
    """
    skip_mark(stream)
    text = _Text(stream, where)
    first = text.sign()
    if first not in (b"[", b"{"):
        raise ManifestError("not JSON: it begins neither with { nor with [", where=where, hint=SHAPE)
    yield from text.rows() if first == b"[" else text.rows_under(b'"items"')
    if text.sign():
        raise text.fault("something follows its end")


def jsonl_rows(stream: io.BufferedReader, where: str) -> Iterator[Any]:
    """Values of the lines of a `.jsonl` manifest; empty lines are none.

    Raises:
        ManifestError: the first line is not JSON.
    """
    skip_mark(stream)
    for number, line in enumerate(iter(partial(read_line, stream), b""), 1):
        if line is None or not line.isspace():
            yield _parse(None if line is None else line.rstrip(), where, number, is_first=number == 1)


def _parse(row: bytes | None, where: str, line: int, *, is_first: bool) -> Any:
    """The value of a row that begins in `line`; None stands for one that is too long."""
    if row is None:
        return NoRow(f"the row of line {line} is longer than {MAX_ROW} bytes")
    try:
        return json.loads(row.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        place = line + (error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0)
        if is_first:  # a page of HTML, a CSV: not a manifest at all
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
            raise ManifestError(f"not JSON: {reason}", where=f"{where}:{place}", hint=SHAPE) from error
        return NoRow(f"line {place} is not JSON")
    except (ValueError, RecursionError):  # int() refuses more than 4,300 digits (CVE-2020-10735)
        return NoRow(f"the row of line {line} has too long a number or too deep a nesting")


def skip_mark(stream: io.BufferedReader) -> None:
    """Pass a byte order mark at the beginning."""
    if stream.peek(3)[:3] == b"\xef\xbb\xbf":  # the byte order mark that Windows tools write
        stream.read(3)


def read_line(stream: io.BufferedReader) -> bytes | None:
    """The next line, empty at the end; None for one that is longer than `MAX_ROW` bytes, which is passed."""
    line = stream.readline(MAX_ROW + 1)
    if len(line) <= MAX_ROW or line.endswith(b"\n"):
        return line
    while (rest := stream.readline(MAX_ROW)) and not rest.endswith(b"\n"):
        pass
    return None


class _Text:
    """A place in a JSON text, of which at most `MAX_ROW` bytes and one block are held."""

    def __init__(self, stream: io.BufferedReader, where: str) -> None:
        self._stream, self._where = stream, where
        self._buffer = b""
        self._at = 0
        self._start = 0
        """Where the value begins that is being passed; bytes before it are dropped."""
        self._is_long = False
        self._line, self._counted = 1, 0
        """Line of the place `_counted` in the buffer."""

    def rows(self) -> Iterator[Any]:
        """Values of the list that begins here."""
        is_first = True
        for _ in self._entries(b"]"):
            while (flat := _FLAT_ROW.match(self._buffer, self._at)) and len(flat[1]) <= MAX_ROW:
                self._at = flat.start(1)
                line = self.line()
                self._at = flat.end()
                yield _parse(flat[1], self._where, line, is_first=is_first)
                is_first = False
            self.sign()
            line = self.line()
            yield _parse(self.value(), self._where, line, is_first=is_first)
            is_first = False

    def rows_under(self, name: bytes) -> Iterator[Any]:
        """Values of the list under this key of the object that begins here."""
        for _ in self._entries(b"}"):
            if self.sign() != b'"':
                raise self.fault("expected a key")
            key = self.value()
            if self.sign() != b":":
                raise self.fault("expected : after a key")
            self._at += 1
            if key == name and self.sign() == b"[":
                yield from self.rows()
            else:
                self.value()

    def _entries(self, end: bytes) -> Iterator[None]:
        """Once for each entry of the list or object that begins here, while the place is before that entry."""
        self._at += 1
        if self.sign() == end:
            self._at += 1
            return
        while True:
            yield
            sign = self.sign()
            if sign not in (b",", end):
                raise self.fault(f"expected , or {end.decode()}" if sign else "it ends too early")
            self._at += 1
            if sign == end:
                return

    def value(self) -> bytes | None:
        """Pass one value; None if it is longer than `MAX_ROW` bytes."""
        sign = self.sign()
        self._start, self._is_long = self._at, False
        if sign in (b"[", b"{"):
            self._pass_brackets()
        elif sign == b'"':
            self._at += 1
            self._pass_string()
        else:
            self._pass(_SCALAR)
        if self._at == self._start and not self._is_long:
            raise self.fault("expected a value" if sign else "it ends too early")
        is_long = self._is_long or self._at - self._start > MAX_ROW
        return None if is_long else self._buffer[self._start : self._at]

    def sign(self) -> bytes:
        """The next byte that is not blank, empty at the end."""
        self._start = self._at
        return self._pass(_BLANKS)

    def line(self) -> int:
        """The line of this place, from 1."""
        self._line += self._buffer.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def fault(self, reason: str) -> ManifestError:
        return ManifestError(f"not JSON: {reason}", where=f"{self._where}:{self.line()}", hint=SHAPE)

    def _pass_brackets(self) -> None:
        depth = 0
        while sign := self._pass(_CONTENT):
            self._at += 1
            if sign == b'"':  # a string that the buffer does not hold to its end
                self._pass_string()
            else:
                depth += 1 if sign in b"[{" else -1
                if depth == 0:
                    return
        raise self.fault("it ends too early")

    def _pass_string(self) -> None:
        while sign := self._pass(_LETTERS):
            self._at += 1
            if sign == b'"':
                return
            if self._at == len(self._buffer) and not self._more():  # behind a backslash, any sign is a letter
                break
            self._at += 1
        raise self.fault("it ends too early")

    def _pass(self, pattern: re.Pattern[bytes]) -> bytes:
        """Go to the end of the pattern, which matches here; returns the byte there, empty at the end of the text."""
        while True:
            match = pattern.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._more():
                return b""

    def _more(self) -> bool:
        """Hold another block, and what there is of the value so far unless that is too long already."""
        self._is_long = self._is_long or self._at - self._start > MAX_ROW
        if self._is_long:
            self._start = self._at
        self.line()
        block = self._stream.read(_READ)
        self._buffer = self._buffer[self._start :] + block
        self._at, self._counted, self._start = self._at - self._start, self._counted - self._start, 0
        return bool(block)
