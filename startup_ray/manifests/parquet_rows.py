"""Rows of a Parquet file: lists of URLs, and tables that hold their images, as Hugging Face's `datasets` writes them.

    with open_seekable("cats.parquet") as file:
        table = ParquetTable(file, "file:///data/cats.parquet", ColumnOptions(), where="cats.parquet", changed=1)
        table.holds_images
        for value, place in table.rows():      # {"id": ..., "url": ..., "label": ...} and its place in the file
            ...

Images are not read here: the URL of a row says where its image lies, `file:///data/cats.parquet#group=0&row=7`. Only
where the path of an image is a URL they are looked at, since that may stand for an image that is not in the file. A
label that the file's schema calls a `ClassLabel` is its name. At most a batch of rows is held, with each of its
different texts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any

from startup_ray.errors import ManifestError, first_line
from startup_ray.ingest_options import ColumnOptions
from startup_ray.items import NoRow, OwnUrl, known_names, own_names
from startup_ray.manifests.forms import name_of
from startup_ray.manifests.tables import require_columns
from startup_ray.regions import MAX_BOXES

BATCH = 1_024
"""Rows."""
FEW = 16
"""Rows of a batch where the images themselves must be read, to know which are missing."""
BUFFER = 1 << 20
"""Bytes of a column that are held at once; without it, all of a row group."""


class ParquetTable:
    """An open Parquet file.

    Args:
        file: what can be read at any place.
        url: which the URLs of embedded images begin with.
        where: the file as errors show it.
        changed: a number that is another after the file has changed; it tells an image from the one before.

    Raises:
        ManifestError: not Parquet, or without the columns that are asked for.
    """

    def __init__(self, file: Any, url: str, columns: ColumnOptions, *, where: str, changed: int = 0) -> None:
        import pyarrow.parquet as pq

        self._url, self._columns, self._where, self._changed = url, columns, where, changed
        with self._readable():
            found = pq.ParquetFile(file)
            schema = found.schema_arrow
            self._image = _leaf_of_images(schema, columns.image)
            # Texts are read as dictionaries, since one of a megabyte may stand in every row.
            texts = [field.name for field in schema if field.name != columns.image and _is_bytes(field.type)]
            self._file = pq.ParquetFile(
                file,
                metadata=found.metadata,
                pre_buffer=False,
                buffer_size=BUFFER,
                read_dictionary=[*texts, *self._paths],
            )
        require_columns(schema.names, columns, where, has_images=self.holds_images)
        self._classes = _class_names(schema, columns.label)
        self._names = _readable_names(schema, columns, where)

    @property
    def holds_images(self) -> bool:
        """Whether it has images of its own, and not URLs alone."""
        return self._image != ""

    def rows(self) -> Iterator[tuple[Any, str]]:
        """Each row as an object, or a NoRow, and its place: `<name of the file>:<row>`.

        Raises:
            ManifestError: the file is damaged.
        """
        number = 0
        with self._readable():
            for group in range(self._file.num_row_groups):
                looked: Iterator[bool] | None = None
                for row, (value, path) in enumerate(self._group(group)):
                    if looked is None and path and "://" in path:
                        looked = islice(self._look(group), row, None)
                    place = f"{name_of(self._url)}:{number}"
                    has_image = next(looked, True) if looked else self.holds_images
                    fragment = f"group={group}&row={row}&changed={self._changed}" if has_image else ""
                    self._put_url(value, path, fragment, place)
                    yield self._with_class(value), place
                    number += 1

    @property
    def _paths(self) -> list[str]:
        """The column of the images' paths, if images are structs."""
        column = self._columns.image
        return [f"{column}.path"] if self._image and self._image != column else []

    def _group(self, group: int) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Rows of a row group without their images, each with the path of its image."""
        if not self._names and not self._paths:
            yield from (({}, None) for _ in range(self._file.read_row_group(group, []).num_rows))
            return
        for batch in self._file.iter_batches(BATCH, [group], [*self._names, *self._paths], use_threads=False):
            table = [_values(batch.column(name)) for name in self._names]
            inner = _values(batch.column(self._columns.image).flatten()[0]) if self._paths else repeat(None)
            for *values, path in zip(*table, inner, strict=False):
                yield dict(zip(self._names, values, strict=True)), path

    def _look(self, group: int) -> Iterator[bool]:
        """Of each row of a row group, whether it holds an image. The file's statistics say it too, but pyarrow (26)
        ends the process when it is asked for those of a damaged file.
        """
        for batch in self._file.iter_batches(FEW, [group], [self._image], use_threads=False):
            column = batch.column(0)
            leaf = column if self._image == self._columns.image else column.flatten()[0]
            yield from leaf.is_valid().to_pylist()

    def _put_url(self, value: dict[str, Any], path: str | None, fragment: str, place: str) -> None:
        """The URL of a row with an image, and an id if it has none; without an image its path is the URL."""
        columns = self._columns
        if fragment:
            value[columns.url] = OwnUrl(f"{self._url}#{fragment}")
            value.setdefault(columns.id, place)  # paths in such files are often mere names, which come more than once
        elif path and value.get(columns.url) is None:
            value[columns.url] = path

    def _with_class(self, value: dict[str, Any]) -> dict[str, Any] | NoRow:
        """A row with the name of its class instead of the number; -1 stands for none."""
        column = self._columns.label
        number = value.get(column) if column else None
        if column is None or not self._classes or not isinstance(number, int):
            return value
        if not -1 <= number < len(self._classes):
            return NoRow(f"{column} {number} is none of {len(self._classes)} classes")
        return value | {column: self._classes[number] if number >= 0 else None}

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"cannot read this Parquet file: {first_line(error)[:200]}"
            raise ManifestError(message, where=self._where, hint="check `ingest.manifest`") from error


def _leaf_of_images(schema: Any, column: str | None) -> str:
    """Path of the column of encoded images, a struct {bytes, path} or plain bytes; empty if there is none."""
    import pyarrow as pa

    if column is None or schema.names.count(column) != 1:
        return ""
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        inner = {field.name: field.type for field in kind}
        return f"{column}.bytes" if inner.keys() == {"bytes", "path"} and _is_binary(inner["bytes"]) else ""
    return column if _is_binary(kind) else ""


def _readable_names(schema: Any, columns: ColumnOptions, where: str) -> list[str]:
    """Columns that rows are made of, images left out.

    Raises:
        ManifestError: one that is asked for holds what is neither text nor number.
    """
    import pyarrow as pa

    types = {name: kind for name, kind in zip(schema.names, schema.types, strict=True) if name != columns.image}
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null, _is_text)
    simple = {name: kind for name, kind in types.items() if any(is_kind(kind) for is_kind in plain)}
    asked = sorted(known_names(columns) & types.keys())
    for name in asked:
        is_read = name in simple or _is_binary(types[name]) or (name == columns.blur and _is_boxes(types[name]))
        if not is_read:
            wanted = "boxes" if name == columns.blur else "texts"
            raise ManifestError(f"column {name!r} holds {str(types[name])[:80]}, no {wanted}", where=where)
    return [*asked, *own_names(simple, columns)]


def _class_names(schema: Any, column: str | None) -> Sequence[str]:
    """Names of the classes of a label that Hugging Face's `datasets` has declared a ClassLabel."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        feature = features[column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any((pa.types.is_string(kind), pa.types.is_large_string(kind), pa.types.is_string_view(kind)))


def _is_bytes(kind: Any) -> bool:
    return _is_text(kind) or _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return any((pa.types.is_binary(kind), pa.types.is_large_binary(kind), pa.types.is_binary_view(kind)))


def _is_boxes(kind: Any) -> bool:
    """Lists of lists of numbers, or nothing where those would be."""
    import pyarrow as pa

    for _ in range(2):
        if not _is_list(kind):
            return bool(pa.types.is_null(kind))
        kind = kind.value_type
    return any((pa.types.is_floating(kind), pa.types.is_integer(kind), pa.types.is_null(kind)))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return any((pa.types.is_list(kind), pa.types.is_large_list(kind), pa.types.is_fixed_size_list(kind)))


def _boxes(column: Any) -> list[Any]:
    """A column of lists of lists of numbers, of each just as much as tells that it is too long."""
    rows = [row.values[: MAX_BOXES + 1] if row.is_valid else None for row in column]
    return [
        None if boxes is None else [box.values[:5].to_pylist() if box.is_valid else None for box in boxes]
        for boxes in rows
    ]


def _values(column: Any) -> list[Any]:
    """A column as Python values, each different text once; bytes that are no UTF-8 as what no text can hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        places = column.indices.to_pylist()
        if len(column.dictionary) <= len(column):
            texts = dict(enumerate(_values(column.dictionary)))
        else:
            used = pc.unique(column.indices).drop_null()
            texts = dict(zip(used.to_pylist(), _values(column.dictionary.take(used)), strict=True))
        return [texts.get(place) for place in places]
    if _is_list(column.type):
        return _boxes(column)
    if pa.types.is_null(column.type) or not _is_bytes(column.type):
        return list(column.to_pylist())
    raw = column.cast(pa.large_binary()).to_pylist()
    return [value if value is None else value.decode("utf-8", "surrogateescape") for value in raw]
