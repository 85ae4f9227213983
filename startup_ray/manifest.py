"""Manifests: from a list, a folder of lists or a folder of images to items and to bad rows, as a stream.

    with open_manifest("cats.csv.gz", options.columns, sources.judge) as manifest:
        for row in manifest.rows():       # Item or BadRow, positions 0, 1, 2, ...
            ...
        manifest.digest()                 # 'sha256:...'

Lists are `{"items": [{"id", "url", ...}, ...]}` or the bare list in `.json`, an object a line in `.jsonl`, tables with
a header in `.csv`, `.tsv` and `.parquet`, and a URL a line in `.txt`; packed as `.gz` too. They lie at a path, an
http(s) URL or on an object store. A row that is no item never stops the reading; a manifest that cannot be read at all
is a ManifestError. Only one row is held at a time, or a batch of a Parquet file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from startup_ray.errors import ManifestError
from startup_ray.ingest_options import ColumnOptions
from startup_ray.items import BadRow, Item, Judge, http_only, parse_row
from startup_ray.manifests.contents import Content, ImageFolder, ListFile, ListFolder, ParquetList
from startup_ray.manifests.forms import ENDINGS, STORES, form_of, path_of, scheme_of
from startup_ray.manifests.image_folders import is_image_folder
from startup_ray.manifests.streams import as_manifest_error, open_stream, where_of
from startup_ray.manifests.trees import open_tree, top

SAMPLES = {"sample:digits": 1, "sample:photos": 1}
"""Samples with the version of what they hold."""

_COLUMNS = ColumnOptions()
_HINT = f"name a list ({ENDINGS}), a folder of lists or of images, or sample:digits"


class Manifest:
    """An open manifest. `rows` may be read once."""

    def __init__(self, content: Content, where: str, columns: ColumnOptions, judge: Judge) -> None:
        self._content, self._where, self._columns, self._judge = content, where, columns, judge

    def rows(self) -> Iterator[Item | BadRow]:
        """Every row in order.

        Raises:
            ManifestError: it is not what its name says, there is no item in it, or the connection broke.
        """
        position = -1
        for position, (value, place) in enumerate(self._content.values()):
            yield parse_row(value, position, columns=self._columns, judge=self._judge, place=place)
        if position < 0:
            raise ManifestError("no items in this manifest", where=self._where, hint=self._content.expected)

    def digest(self) -> str:
        """`sha256:` and hex: of a list over its raw bytes, of a folder over name, size and time of each file.

        So is that of a Parquet file that holds its images, which need not be read for it.
        """
        return self._content.digest()


@contextmanager
def open_manifest(location: str, columns: ColumnOptions = _COLUMNS, judge: Judge = http_only) -> Iterator[Manifest]:
    """The manifest at a path, an http(s) URL, or on an object store.

    Args:
        columns: of a list, what its columns are called.
        judge: of URLs that are not http(s), and of paths; by default none of them may be read.

    Raises:
        ManifestError: no such file, an unknown form, or a server that does not hand it out.
    """
    where = where_of(location)
    _require_location(location)
    with ExitStack() as stack:
        with as_manifest_error(location):
            tree = None if scheme_of(location) in ("http", "https") else open_tree(location)
            entries = top(tree) if tree else []
        if tree and (is_image_folder(entries) or not any(form_of(entry.name) for entry in entries)):
            plain = _COLUMNS.model_copy(update={"blur": columns.blur})  # which it does not have: no image is kept
            yield Manifest(ImageFolder(tree, columns, where), where, plain, judge)
        elif tree:
            yield Manifest(ListFolder(tree, entries, columns, where), where, columns, judge)
        else:
            yield Manifest(_open_list(location, columns, stack), where, columns, judge)


def is_manifest(location: str) -> bool:
    """Whether a word can only mean a manifest, by its form."""
    return "://" in location or location.startswith("sample:") or form_of(location) is not None


def manifest_digest(location: str, columns: ColumnOptions = _COLUMNS) -> str:
    """As `Manifest.digest`; of a sample over its name and version, without reading it.

    Raises:
        ManifestError: it cannot be read, or there is no such sample.
    """
    if location.startswith("sample:"):
        return f"sha256:{hashlib.sha256(f'{location}@{sample_version(location)}'.encode()).hexdigest()}"
    with open_manifest(location, columns) as manifest:
        return manifest.digest()


def require_manifest(location: str) -> None:
    """See that there is a manifest, without reading it.

    Raises:
        ManifestError: as `open_manifest`, or there is no such sample.
    """
    if location.startswith("sample:"):
        sample_version(location)
        return
    with open_manifest(location):
        pass


def sample_version(name: str) -> int:
    """Version of the content of `sample:NAME`.

    Raises:
        ManifestError: there is no such sample.
    """
    if name not in SAMPLES:
        raise ManifestError("no such sample", where=name, hint=f"there are: {', '.join(SAMPLES)}")
    return SAMPLES[name]


def _require_location(location: str) -> None:
    try:
        path_of(location)
    except ValueError:  # its words hold what stands before the host, passwords too
        raise ManifestError("the manifest's URL cannot be parsed", where=where_of(location)) from None
    if scheme_of(location) not in ("", "http", "https", *STORES):
        raise ManifestError("a manifest is a path, or an http(s), s3 or gs URL", where=where_of(location), hint=_HINT)


def _open_list(location: str, columns: ColumnOptions, stack: ExitStack) -> Content:
    form = form_of(location)
    if form is None:
        if not scheme_of(location):
            with as_manifest_error(location):
                os.stat(os.path.expanduser(location))  # a name that is misspelt has no form either
        raise ManifestError("unknown kind of manifest", where=where_of(location), hint=_HINT)
    stream = stack.enter_context(open_stream(location, is_packed=form.is_packed))
    if form.kind == "parquet":
        stream.close()
        return ParquetList(location, form, columns, stack)
    return ListFile(stream, form.kind, location, columns)
