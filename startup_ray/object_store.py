"""Object stores by pyarrow, with retries and time limits that ride out what passes by and end what does not.

    filesystem, root = connect("s3://bucket?region=eu-west-1")
    write_whole(filesystem, f"{root}/runs/a/job.yaml", b"...")
    read_whole(filesystem, f"{root}/runs/a/job.yaml")

Laws: no request waits for ever; a body that breaks off is never taken for a whole one; neither is one that
mixes two versions of a file. A write that failed may have happened nevertheless, whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

RETRIES = 10
"""Of a request, after 25 ms, 50 ms, ... 12.8 s: a store that refuses everything is told of after 26 s."""
CONNECT_S, SILENCE_S = 5.0, 10.0
"""Of each attempt; so a store that cannot be reached is told of after 81 s, and one that says nothing after 136 s."""
GCS_LIMIT_S = 60
"""How long Google's own client tries again; by itself a quarter of an hour."""
_READS = 5


@lru_cache(maxsize=64)
def connect(uri: str, *, retries: int = RETRIES, silence_s: float = SILENCE_S) -> tuple[Any, str]:
    """`pyarrow.fs.FileSystem` and the path in it; one connection for all that ask for the same.

    Raises:
        ValueError, OSError: of pyarrow, for a scheme, a key of the query or a bucket that it does not know.
    """
    from pyarrow import fs

    filesystem, root = fs.FileSystem.from_uri(uri)
    if isinstance(filesystem, fs.S3FileSystem):
        limits = {
            "retry_strategy": fs.AwsDefaultS3RetryStrategy(max_attempts=retries),
            "connect_timeout": CONNECT_S,
            "request_timeout": silence_s,
            "allow_delayed_open": False,
        }
        filesystem = _rebuilt(filesystem, limits)
    elif isinstance(filesystem, fs.GcsFileSystem) and "retry_limit_seconds=" not in uri:
        filesystem = _rebuilt(filesystem, {"retry_time_limit": timedelta(seconds=GCS_LIMIT_S)})
    return filesystem, str(root)


def read_whole(filesystem: Any, path: str) -> bytes:
    """The content of a file as one writer has left it.

    pyarrow asks for the size, then for as many bytes: of a file that was replaced in between, a part. So ask again.

    Raises:
        OSError: it cannot be read, or is replaced faster than it can be read.
    """
    for _ in range(_READS):
        with filesystem.open_input_file(path) as stream:
            version, data = _version(stream), bytes(read_again(stream.read))
        with filesystem.open_input_file(path) as stream:
            if _version(stream) == version and len(data) == stream.size():
                return data
    raise OSError("the file is replaced faster than it can be read")


def read_again(read: Callable[[], T]) -> T:
    """What `read` returns, called again after the same waits where pyarrow's client gives up at once.

    It reads into a buffer of the size asked for, the text of an error too: a "503 SlowDown" that is longer than a small
    file, or the labels of a shard, becomes a fault that it does not try again (apache/doris#66557 tells how).

    Raises:
        OSError: any other fault, at once, and this one at last.
    """
    for attempt in range(RETRIES):
        try:
            return read()
        except OSError as error:
            if "Failed to flush response stream" not in str(error):
                raise
        time.sleep(0.025 * 2**attempt)
    return read()


def write_whole(filesystem: Any, path: str, data: bytes) -> None:
    """Write a file that a reader sees whole or not at all.

    Raises:
        OSError: it cannot be written; or it has been, and its store could not say so.
    """
    try:
        _write(filesystem, path, data)
    except OSError as error:
        # The end of an upload was tried again after its answer was lost, and had worked: MinIO forgets it then.
        if "NO_SUCH_UPLOAD" not in str(error):
            raise
        _write(filesystem, path, data)


def _write(filesystem: Any, path: str, data: bytes) -> None:
    """In one call of `write`, and with the options of `connect`.

    pyarrow (26) closes a stream after a fault too, and with other options the close makes a file of what there is:
    with `allow_delayed_open` an empty one, without `background_writes` the parts before the fault.
    """
    with filesystem.open_output_stream(path, compression=None) as stream:  # by default it packs what is called *.gz
        stream.write(data)


def _rebuilt(filesystem: Any, limits: dict[str, Any]) -> Any:
    """The same store with limits that a URI cannot say.

    pyarrow's own for S3: an attempt each 0.2 s for 6 s, and 3 s of silence, which a busy store easily reaches.
    """
    rebuild, (options,) = filesystem.__reduce__()
    if rebuild(options) != filesystem:  # tls_ca_dir_path and tls_verify_certificates exist in a URI alone
        return filesystem
    return rebuild(options | limits)


def _version(stream: Any) -> tuple[int, Any]:
    """What differs between two versions of a file: its size and, on a store, its ETag and time."""
    return stream.size(), stream.metadata()
