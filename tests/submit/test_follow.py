from __future__ import annotations

import random

import pytest

from startup_ray.errors import ClusterError, UsageError
from startup_ray.submit.address import Cluster
from startup_ray.submit.follow import Tail, end_of, follow
from startup_ray.submit.jobs_api import Details, JobsApi
from tests.fakes import Clock
from tests.submit.flaky import Flaky

LOG = "".join(f"line {number}: äö🙂\n" for number in range(40))


def followed(head: Flaky) -> tuple[str, Details]:
    out: list[str] = []
    with head.served():
        job = follow(JobsApi(Cluster(head.url)), "a-1", Tail(out.append), sleep=lambda _: None)
    return "".join(out), job


@pytest.mark.parametrize("seed", range(5))
def test_however_the_stream_breaks_each_character_comes_once(seed: int) -> None:
    draw = random.Random(seed)
    head = Flaky(LOG, breaks=[draw.randrange(0, 25) for _ in range(6)], piece=draw.randrange(1, 20))
    text, job = followed(head)
    assert text == LOG
    assert job.status == "SUCCEEDED"
    assert head.streams == 7


def test_a_stream_that_ends_is_not_the_end_of_the_job() -> None:
    head = Flaky(LOG, breaks=[], states=["RUNNING", "RUNNING", "FAILED"])
    text, job = followed(head)
    assert (text, job.status, head.streams) == (LOG, "FAILED", 3)


def test_what_no_stream_has_brought_is_in_the_log() -> None:
    class Hasty(Flaky):
        """Says that the job has ended, and streams half of its log."""

    head = Hasty(LOG, breaks=[3])
    head._is_out = True
    text, _ = followed(head)
    assert text == LOG
    assert head.streams == 0


def test_a_log_that_is_gone_with_its_node_does_not_hide_the_end() -> None:
    head = Flaky(LOG, breaks=[])
    head.has_log = False
    text, job = followed(head)
    assert (text, job.status) == (LOG, "SUCCEEDED")


def test_a_cluster_that_does_not_answer_is_lost_after_a_while() -> None:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    began = clock.now
    api = JobsApi(Cluster("http://127.0.0.1:9"))
    with pytest.raises(ClusterError, match="the cluster is lost: no Jobs API answers: connection refused") as caught:
        follow(api, "a-1", Tail(print), patience_s=30, clock=clock, sleep=sleep)
    assert 30 <= clock.now - began < 40
    assert "startup-ray logs a-1 --address http://127.0.0.1:9" in caught.value.hint
    assert caught.value.exit_code == 5


def test_a_head_that_was_started_anew_does_not_know_the_job() -> None:
    class Forgets(JobsApi):
        answers = 0

        def details(self, submission_id: str) -> Details:
            self.answers += 1
            return super().details(submission_id if self.answers == 1 else "b-1")

    head = Flaky(LOG, breaks=[2])
    with head.served(), pytest.raises(ClusterError, match="started anew"):
        follow(Forgets(Cluster(head.url)), "a-1", Tail(print), sleep=lambda _: None)
    with head.served(), pytest.raises(UsageError, match="no job b-1"):
        follow(JobsApi(Cluster(head.url)), "b-1", Tail(print))


def test_pieces_that_overlap_are_written_once() -> None:
    draw = random.Random(3)
    for _ in range(200):
        out: list[str] = []
        tail = Tail(out.append)
        for _ in range(draw.randrange(1, 6)):
            at, until = 0, draw.randrange(0, len(LOG) + 1)
            while at < until:
                at = tail.take(LOG[at : min(until, at + draw.randrange(1, 50))], at)
        tail.take(LOG, 0)
        assert "".join(out) == LOG


def test_waiting_for_an_end_has_a_limit() -> None:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    with Flaky(LOG, breaks=[]).served() as head:
        api = JobsApi(Cluster(head.url))
        with pytest.raises(ClusterError, match="a-1 has not ended in 5 s"):
            end_of(api, "a-1", patience_s=5, clock=clock, sleep=sleep)
        head._is_out = True
        assert end_of(api, "a-1", patience_s=5, clock=clock, sleep=sleep).status == "SUCCEEDED"
