"""A real S3-compatible server on loopback, as a process of its own, so that it can be stopped and killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from startup_ray.storage import Folder, open_folder

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
"""What the environment of every client must hold; the server takes any."""


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int

    def folder(self, name: str) -> Folder:
        return folder_at(self.port, name)


def folder_at(port: int, name: str) -> Folder:
    """In the bucket, by the server or a proxy at a port."""
    return open_folder(
        f"s3://bucket/{name}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    )


@contextmanager
def s3_server() -> Iterator[Server]:
    """With one bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port)
        server = Server(process, port)
        server.folder("").filesystem()[0].create_dir("bucket")
        yield server
    finally:
        process.kill()
        process.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "no S3 server"
            time.sleep(0.1)
