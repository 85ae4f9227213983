"""A loopback nginx for a folder of files, from Debian's package."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rig.meter import die_with_parent

_CONFIG = """
daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; default_type image/jpeg;
  keepalive_timeout 60s; keepalive_requests 100000000;
  open_file_cache max=50000 inactive=600s; open_file_cache_valid 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=1024; root {root}; }}
}}
"""


@contextmanager
def serve(root: Path, folder: Path, *, workers: int = 1) -> Iterator[str]:
    """The address of a server for the files under `root`; what nginx itself writes goes to `folder`."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise SystemExit("nginx is missing; on Debian and Ubuntu: apt-get install nginx-light")
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # as root, its workers are nobody
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(workers=workers, folder=folder, port=port, root=root))
    server = subprocess.Popen(
        [program, "-c", str(config), "-e", str(folder / "start.log")], preexec_fn=die_with_parent, process_group=0
    )
    try:
        _wait(server, port, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    for _ in range(200):
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    notes = "\n".join(path.read_text() for path in folder.glob("*.log"))
    raise SystemExit(f"nginx does not start:\n{notes}")
