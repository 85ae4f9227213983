from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from startup_ray.errors import ClusterError, ExistsError, LostError, UsageError
from startup_ray.submit.address import Cluster
from startup_ray.submit.jobs_api import JobsApi

JOB = {"type": "SUBMISSION", "submission_id": "a-1", "status": "FAILED", "driver_exit_code": 3, "entrypoint": "x"}


class Server:
    """Answers every request alike, and notes them."""

    def __init__(self) -> None:
        self.answer: tuple[int, str, dict[str, str]] = (200, "{}", {})
        self.delay_s = 0.0
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.seen.append((self.command, self.path, {**self.headers}, body))
                time.sleep(server.delay_s)
                code, text, headers = server.answer
                self.send_response(code)
                for name, value in {"Content-Length": str(len(text.encode())), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = _any  # noqa: N815 - as they are called

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called
                """Nothing."""

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def api(server: Server) -> JobsApi:
    return JobsApi(Cluster(server.url, "sesame"))


CALLS: dict[str, Callable[[JobsApi], Any]] = {
    "versions": lambda api: api.versions(),
    "resources": lambda api: api.resources(),
    "put": lambda api: api.put_package("p.zip", b"zip"),
    "submit": lambda api: api.submit(entrypoint="x", submission_id="a-1", runtime_env={}, metadata={}),
    "details": lambda api: api.details("a-1"),
    "jobs": lambda api: api.jobs(),
    "log": lambda api: api.log("a-1"),
    "stop": lambda api: api.stop("a-1"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (401, "Unauthorized", "wants a token"),
        (403, "Forbidden", "refuses this token"),
        (500, "Traceback:\n  File x\nValueError: too bad", "500: ValueError: too bad"),
        (503, "", "503: nothing"),
        (200, "<html>a login page</html>", "no Jobs API"),
    ],
)
def test_refusals_are_told(api: JobsApi, server: Server, call: str, code: int, text: str, told: str) -> None:
    server.answer = (code, text, {})
    with pytest.raises(ClusterError, match=told) as caught:
        CALLS[call](api)
    assert isinstance(caught.value, LostError) == (code in (200, 503))
    assert "sesame" not in str(caught.value)


def test_each_request_has_the_token_and_a_redirect_does_not_take_it_along(api: JobsApi, server: Server) -> None:
    elsewhere = Server()
    try:
        server.answer = (302, "", {"Location": f"{elsewhere.url}/api/jobs/"})
        with pytest.raises(LostError, match="302"):
            api.jobs()
        assert not elsewhere.seen
    finally:
        elsewhere.close()
    assert [headers["Authorization"] for _, _, headers, _ in server.seen] == ["Bearer sesame"]


def test_no_netrc_takes_the_place_of_the_token(
    api: JobsApi, server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answer = (200, "[]", {})
    api.jobs()
    assert server.seen[0][2]["Authorization"] == "Bearer sesame"


def test_a_job_is_read(api: JobsApi, server: Server) -> None:
    server.answer = (200, json.dumps(JOB), {})
    found = api.details("a-1")
    assert (found.status, found.driver_exit_code, found.has_ended) == ("FAILED", 3, True)
    server.answer = (200, json.dumps([JOB | {"start_time": 2}, {"type": "DRIVER", "status": "RUNNING"}, JOB]), {})
    assert [one.start_ms for one in api.jobs()] == [None, 2]


def test_an_id_is_no_path(api: JobsApi, server: Server) -> None:
    server.answer = (200, json.dumps(JOB), {})
    api.details("../packages/x?y")
    assert server.seen[0][1] == "/api/jobs/..%2Fpackages%2Fx%3Fy"


@pytest.mark.parametrize("call", ["details", "log", "stop"])
def test_a_job_that_is_not_there_is_told(api: JobsApi, server: Server, call: str) -> None:
    server.answer = (404, "Job a-1 does not exist", {})
    with pytest.raises(UsageError, match="no job a-1"):
        CALLS[call](api)


def test_an_id_that_is_taken_is_told_apart(api: JobsApi, server: Server) -> None:
    server.answer = (500, "Traceback\nValueError: Job with submission_id a-1 already exists. Please use another.", {})
    with pytest.raises(ExistsError):
        CALLS["submit"](api)


def test_a_package_is_there_or_not(api: JobsApi, server: Server) -> None:
    server.answer = (200, "", {})
    assert api.has_package("p.zip")
    server.answer = (404, "", {})
    assert not api.has_package("p.zip")
    assert server.seen[-1][:2] == ("GET", "/api/packages/gcs/p.zip")


def test_nobody_and_a_slow_one_are_told(server: Server) -> None:
    slow = JobsApi(Cluster(server.url), read_s=0.2)
    server.delay_s = 1.0
    with pytest.raises(LostError, match="it takes too long"):
        slow.jobs()
    with pytest.raises(LostError, match="connection refused"):
        JobsApi(Cluster("http://127.0.0.1:9")).jobs()
