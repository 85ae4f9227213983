from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import ExistsError, LostError
from startup_ray.submit.address import Cluster
from startup_ray.submit.jobs_api import Details, JobsApi, unknown
from startup_ray.submit.order import Order
from startup_ray.submit.send import PACKAGE, attempts_of, send
from startup_ray.submit.upload import chosen


class Head(JobsApi):
    """A cluster in memory."""

    def __init__(self, *known: Details) -> None:
        super().__init__(Cluster("http://127.0.0.1:1"))
        self.known = {job.submission_id: job for job in known}
        self.packages: dict[str, bytes] = {}
        self.is_answer_lost = self.is_job_lost = False

    def jobs(self) -> list[Details]:
        return [*self.known.values()]

    def details(self, submission_id: str) -> Details:
        if submission_id not in self.known:
            raise unknown(submission_id, self.cluster)
        return self.known[submission_id]

    def has_package(self, name: str) -> bool:
        return name in self.packages

    def put_package(self, name: str, data: bytes) -> None:
        assert name not in self.packages
        self.packages[name] = data

    def submit(self, *, submission_id: str, entrypoint: str, runtime_env: Any, metadata: Any, **_: Any) -> None:
        assert runtime_env["working_dir"].removeprefix("gcs://") in self.packages
        if self.is_job_lost:
            raise LostError("no answer")
        if submission_id in self.known:
            raise ExistsError("it is there")
        self.known[submission_id] = job(submission_id, "PENDING", **metadata)
        if self.is_answer_lost:
            raise LostError("no answer")


def job(submission_id: str, status: str, **metadata: str) -> Details:
    return Details(submission_id=submission_id, status=status, metadata=metadata)


@pytest.fixture
def order(tmp_path: Path) -> Order:
    (tmp_path / "a").write_text("a")
    return Order(argv=("python", "a"), stem="pets-1", files=tuple(chosen(tmp_path)), variables={}, needs={})


def test_each_attempt_has_the_next_number(order: Order) -> None:
    head = Head(
        job("pets-1-2", "STOPPED"), job("pets-1-10", "FAILED"), job("pets-10-11", "RUNNING"), job("other", "RUNNING")
    )
    assert send(head, order) == ("pets-1-11", True)
    assert send(Head(), order) == ("pets-1-1", True)
    assert [one.submission_id for one in attempts_of("pets-1", head.jobs())] == ["pets-1-2", "pets-1-10", "pets-1-11"]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_one_that_is_at_work_is_found(order: Order, status: str) -> None:
    head = Head(job("pets-1-1", "FAILED"), job("pets-1-2", status))
    assert send(head, order) == ("pets-1-2", False)
    assert not head.packages


def test_files_that_have_changed_meanwhile_are_told(
    order: Order, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = Head()
    with caplog.at_level(logging.WARNING, "startup_ray"):
        assert send(head, order)[1]
        assert not send(head, order)[1]
        assert not caplog.messages
        (tmp_path / "a").write_text("b")
        assert send(head, order) == ("pets-1-1", False)
    assert caplog.messages == ["submit: pets-1-1 is at work with other files than those here; stop it to start anew"]


def test_what_was_uploaded_is_not_uploaded_again(order: Order) -> None:
    head = Head()
    send(head, order)
    (name,) = head.packages
    assert head.known["pets-1-1"].metadata[PACKAGE] == name
    head.known["pets-1-1"] = job("pets-1-1", "FAILED")
    assert send(head, order) == ("pets-1-2", True)  # `put_package` refuses a second time


def test_two_that_submit_at_once_have_one_job(order: Order) -> None:
    class Slow(Head):
        def jobs(self) -> list[Details]:
            return []  # the other one's is not seen yet

    head = Slow(job("pets-1-1", "RUNNING"))
    assert send(head, order) == ("pets-1-1", False)


def test_an_answer_that_is_lost_is_asked_for(order: Order) -> None:
    head = Head()
    head.is_answer_lost = True
    assert send(head, order) == ("pets-1-1", True)
    gone = Head()
    gone.is_job_lost = True
    with pytest.raises(LostError):
        send(gone, order)
