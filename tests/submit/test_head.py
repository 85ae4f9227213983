"""The table of exit codes, and what else `submit` promises, against a real head that wants a token."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from startup_ray.submit.address import Cluster
from startup_ray.submit.follow import Tail, follow
from startup_ray.submit.jobs_api import JobsApi
from tests.submit.dropping import Relay
from tests.submit.head import RAY, Head

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
DIGITS = "jobs/digits-cnn.yaml"
LINES = 4000


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    head = Head()
    try:
        head.wait()
        yield head
    finally:
        head.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with the job that the project brings."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "jobs").mkdir()
    (folder / DIGITS).write_bytes((ROOT / DIGITS).read_bytes())
    (folder / ".env").write_text("SECRET=hunter2")
    return folder


class Desk:
    """Commands as a user types them."""

    def __init__(self, head: Head, project: Path) -> None:
        self.head, self.project = head, project
        self.storage = project.parent / f"{project.name}-storage"

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(RAY.with_name("startup-ray")), *words],
            cwd=self.project,
            env={**self.head.env, "RAY_API_SERVER_ADDRESS": self.head.url, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        process = self.start(*words, env=env)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def job(self, *rest: str) -> list[str]:
        return ["submit", DIGITS, "--set", f"storage={self.storage}", *rest]


@pytest.fixture
def desk(head: Head, project: Path) -> Desk:
    return Desk(head, project)


def python(code: str) -> str:
    return shlex.join(["python", "-c", code])


@pytest.fixture(scope="module")
def drivers(head: Head) -> dict[str, str]:
    """Jobs whose end is known, all at work at the same time: {submission id: entrypoint}."""
    found = {
        "ok": python("print('fine')"),
        "exit-3": python("import sys; sys.exit(3)"),
        "missing-script": "python no_such_script.py",
        "killed": python("import os; os.kill(os.getpid(), 9)"),
        "bad-env": python("print('never')"),
        "stopped": python("import time; time.sleep(600)"),
    }
    for name, entrypoint in found.items():
        env = {"working_dir": "gcs://_ray_pkg_none.zip"} if name == "bad-env" else {}
        head.api.submit(entrypoint=entrypoint, submission_id=name, runtime_env=env, metadata={})
    return found


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("ok", 0, "ok succeeded"),
        ("exit-3", 3, "exit-3 failed with exit code 3"),
        ("missing-script", 2, "missing-script failed with exit code 2"),
        ("killed", 137, "killed failed with exit code 137"),
        ("bad-env", 5, "bad-env failed, and not by itself"),
    ],
)
def test_the_exit_code_is_that_of_the_driver(
    desk: Desk, drivers: dict[str, str], name: str, code: int, told: str
) -> None:
    found, out, err = desk.run("logs", name)
    assert found == code, err
    assert told in err
    if name == "ok":
        assert "fine" in out


def test_a_stopped_job_is_130_for_all_who_follow_it(desk: Desk, drivers: dict[str, str]) -> None:
    following = desk.start("logs", "stopped", "--json")
    assert following.stderr is not None
    while "Running entrypoint" not in (line := following.stderr.readline()):
        assert line, "it has ended"
    assert desk.run("stop", "stopped")[0] == 0
    out, _ = following.communicate(timeout=60)
    assert following.returncode == 130
    assert json.loads(out)["status"] == "STOPPED"
    assert desk.run("logs", "stopped")[0] == 130


@pytest.mark.parametrize(
    ("env", "words", "code", "told"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, ["jobs"], 5, "the cluster wants a token"),
        ({"RAY_AUTH_TOKEN": "wrong"}, ["jobs"], 5, "the cluster refuses this token"),
        ({}, ["jobs", "--address", "http://127.0.0.1:9"], 5, "connection refused"),
        ({}, ["jobs", "--address", "http://192.0.2.1:8265"], 2, "in clear"),
        ({}, ["logs", "nothing"], 2, "no job nothing"),
        ({}, ["submit", "none.yaml"], 2, "none.yaml: cannot read the job file"),
        ({}, ["submit", DIGITS], 2, "a relative path is gone with the job"),
        ({}, ["submit", DIGITS, "--set", "storage=/x", "--", "trian"], 2, "'trian' is nothing to submit"),
        ({}, ["submit", DIGITS, "--set", "storage=/x", "--env", "A_TOKEN=hunter2"], 2, "looks like a secret"),
        ({}, ["submit", DIGITS, "--set", "storage=/x", "--set", "scaling.gpus_per_worker=1"], 5, "asks for 2 GPUs"),
    ],
)
def test_what_cannot_be_is_told(desk: Desk, env: dict[str, str], words: Sequence[str], code: int, told: str) -> None:
    found, out, err = desk.run(*words, env=env)
    assert (found, out) == (code, "")
    assert told in err
    assert "Traceback" not in err
    assert desk.head.token not in err


def test_the_same_work_is_one_job_while_it_is_at_work_and_the_next_attempt_afterwards(desk: Desk) -> None:
    first = desk.start(*desk.job("--json", "--", "ingest"))
    while not any(job.entrypoint.endswith(str(desk.storage)) for job in desk.head.api.jobs()):
        assert first.poll() is None
        time.sleep(0.2)
    code, out, err = desk.run(*desk.job("--json", "--", "ingest"))
    document = json.loads(out)
    assert code == 0, err
    assert "is at work already; following it" in err
    out_of_first, err_of_first = first.communicate(timeout=240)
    assert first.returncode == 0
    assert json.loads(out_of_first) == document
    assert document["submission_id"].endswith("-1")
    # Both have the whole log.
    for text in (err, err_of_first):
        assert text.count("Running entrypoint") == 1
        assert text.count("1804 items: 1797 ok") == 1
    code, out, _ = desk.run(*desk.job("--json", "--", "ingest"))
    assert code == 0
    assert json.loads(out)["submission_id"] == document["submission_id"][:-1] + "2"
    assert desk.run(*desk.job("--set", "ingest.min_success=1.0", "--", "ingest"))[0] == 3


def test_the_uploaded_folder_has_no_secrets(desk: Desk) -> None:
    code, out, err = desk.run(*desk.job("--dry-run", "--json"))
    assert code == 0, err
    upload = json.loads(out)["upload"]
    assert DIGITS in upload
    assert not [name for name in upload if ".env" in name]


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(desk: Desk) -> None:
    desk.head.api.submit(
        entrypoint=python("import time; print('at work', flush=True); time.sleep(600)"),
        submission_id="long",
        runtime_env={},
        metadata={},
    )
    following = desk.start("logs", "long")
    assert following.stdout is not None
    while "at work" not in following.stdout.readline():
        assert following.poll() is None
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=30)
    assert following.returncode == 130
    assert f"come back with `startup-ray logs long --address {desk.head.url}`" in err
    assert desk.head.api.details("long").status == "RUNNING"
    assert desk.run("stop", "long")[:2] == (0, "long  STOPPED\n")


def test_stop_on_interrupt_stops_the_job(desk: Desk) -> None:
    process = desk.start(*desk.job("--stop-on-interrupt", "--set", "training.epochs=100000"))
    assert process.stdout is not None
    while "epoch" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "was stopped" in err
    assert "interrupted" in out  # the driver had the time to end by itself


def test_dropped_connections_lose_and_double_no_line(head: Head) -> None:
    code = f"import time\nfor n in range({LINES}):\n    print('line', n, flush=True)\n    time.sleep(0.001)\n"
    head.api.submit(entrypoint=python(code), submission_id="chatty", runtime_env={}, metadata={})
    out: list[str] = []
    with Relay(urlsplit(head.url).port or 0).served() as relay:
        is_over = threading.Event()

        def cut() -> None:
            while not is_over.wait(0.7):
                relay.cut()

        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            job = follow(JobsApi(Cluster(f"http://127.0.0.1:{relay.port}", head.token)), "chatty", Tail(out.append))
        finally:
            is_over.set()
            cutter.join()
        assert relay.cuts >= 3
    assert job.status == "SUCCEEDED"
    lines = [line for line in "".join(out).splitlines() if line.startswith("line ")]
    assert lines == [f"line {n}" for n in range(LINES)]


def test_rays_own_command_carries_out_a_job_too(desk: Desk, project: Path) -> None:
    (project / "startup_ray").symlink_to(ROOT / "startup_ray")  # as in a checkout; Ray follows links
    try:
        words = ["job", "submit", f"--address={desk.head.url}", "--working-dir=.", "--"]
        words += [sys.executable, "-m", "startup_ray", "ingest", DIGITS, "--set", f"storage={desk.storage}"]
        env = {**desk.head.env, "RAY_AUTH_MODE": "token"}
        done = subprocess.run([str(RAY), *words], cwd=project, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1804 items: 1797 ok" in done.stdout
    finally:
        (project / "startup_ray").unlink()


def test_a_driver_of_ours_takes_the_token_that_it_finds(head: Head) -> None:
    """Ray's own would need RAY_AUTH_MODE beside it."""
    code = f"import startup_ray as sr\nwith sr.connect({head.gcs!r}) as session: print(session.cpus)"
    done = subprocess.run([sys.executable, "-c", code], env=head.env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "4.0\n", done.stderr


def test_a_head_that_dies_is_lost(head: Head, desk: Desk) -> None:
    """The last one: nothing is left of it."""
    entrypoint = python("import time; print('at work', flush=True); time.sleep(600)")
    head.api.submit(entrypoint=entrypoint, submission_id="doomed", runtime_env={}, metadata={})
    following = desk.start("logs", "doomed", "--patience", "3")
    assert following.stdout is not None
    while "at work" not in following.stdout.readline():
        assert following.poll() is None
    head.kill()
    _, err = following.communicate(timeout=60)
    assert following.returncode == 5
    assert "the cluster is lost" in err
    assert "startup-ray logs doomed" in err
