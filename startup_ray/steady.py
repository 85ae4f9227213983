"""A pyarrow filesystem for readers of Parquet, whose reads are tried again where pyarrow's client gives up at once.

    filesystem = steady("s3://bucket?region=eu-west-1")     # pyarrow.fs.PyFileSystem; pickles with its limits
    pq.read_table("bucket/runs/a/part.parquet", filesystem=filesystem)

Law: what it reads and says is what the filesystem behind it reads and says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from startup_ray.object_store import connect, read_again


def steady(uri: str) -> Any:
    """`pyarrow.fs.PyFileSystem` of the bucket of an object store.

    Raises:
        ValueError, OSError: as `object_store.connect`.
    """
    from pyarrow import fs

    fs.FileSystemHandler.register(_Handler)  # by name, because a subclass would import pyarrow with this module
    return fs.PyFileSystem(_Handler(uri, connect(uri)[0]))


@dataclass(frozen=True)
class _Handler:
    """`pyarrow.fs.FileSystemHandler`: what is not here has the same form in the store itself."""

    uri: str
    store: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _handler, (self.uri,)

    def get_type_name(self) -> str:
        return str(self.store.type_name)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.store.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.store.create_dir(path, recursive=recursive)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        self.store.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        self.store.delete_dir_contents("", accept_root_dir=True)

    def open_input_file(self, path: str) -> Any:
        from pyarrow import PythonFile

        return PythonFile(_SteadyFile(self.store.open_input_file(path)), mode="r")

    open_input_stream = open_input_file

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return self.store.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        return self.store.open_append_stream(path, compression=None, metadata=metadata)


def _handler(uri: str) -> Any:
    return steady(uri).handler


@dataclass(frozen=True)
class _SteadyFile:
    """What `pyarrow.PythonFile` asks of a file for reading; a read begins anew where it began."""

    stream: Any

    @property
    def closed(self) -> bool:
        return bool(self.stream.closed)

    def close(self) -> None:
        self.stream.close()

    def tell(self) -> int:
        return int(self.stream.tell())

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self.stream.seek(position, whence))

    def read_buffer(self, size: int) -> Any:
        start = self.stream.tell()

        def read() -> Any:
            self.stream.seek(start)
            return self.stream.read_buffer(size)

        return read_again(read)

    def read(self, size: int) -> bytes:
        return bytes(self.read_buffer(size))
