"""The texts are those of Ray Train 2.60 and TensorFlow 2.21; real failures: tests/ray/test_training_failures.py."""

from __future__ import annotations

import os

import pytest
from ray.exceptions import RayActorError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from startup_ray.errors import ClusterError, RunHeldError
from startup_ray.storage import Folder
from startup_ray.trainers.failures import LIMITS_S, Watch, explain, limits, reason_in
from startup_ray.trainers.messages import Note

FOLDER = Folder("/runs/one")
SILENT = (
    "UnavailableError: {{function_node __wrapped__CollectiveReduceV2}} Collective ops is aborted by: Error reported "
    "from /job:worker/task:1: The following tasks are unhealthy (stopped sending heartbeats):\n"
    "pid=7 node_ip='10.0.0.1'"
)
HANGS = "A worker health check has been hanging for 60.2 seconds.\n  node_ip='10.0.0.2',\n    pid=8,\n  ),"


def told(failures: dict[int, Exception]) -> str:
    return explain(WorkerGroupError("", failures), FOLDER).message


def test_a_worker_that_raised_is_named_with_process_and_host() -> None:
    assert told({1: RuntimeError("ValueError: odd\npid=7 node_ip='10.0.0.1'")}) == (
        "worker 1 (process 7 on 10.0.0.1) failed: ValueError: odd"
    )


def test_a_worker_that_died_is_the_cause_and_not_one_that_missed_it() -> None:
    died = RayActorError(error_msg="The actor died unexpectedly before finishing this task.\n\tpid: 7")
    assert told({0: RuntimeError("UnavailableError: lost"), 2: died}) == "worker 2 failed: its process died"


def test_a_worker_that_hangs_is_named() -> None:
    assert told({1: RuntimeError(HANGS)}) == "worker 1 (process 8 on 10.0.0.2) failed: it does not answer any more"
    assert told({0: RuntimeError(SILENT)}) == "worker 1 failed: it does not answer any more"


def test_too_little_memory_comes_with_what_to_try() -> None:
    died = RayActorError(error_msg="The actor died\nTask was killed due to the node running low on memory.")
    error = explain(WorkerGroupError("", {0: died}), FOLDER)
    assert error.message == "worker 0 failed: its host ran out of memory"
    assert "global_batch" in error.hint
    assert error.where == "/runs/one"


def test_an_error_of_ours_comes_as_it_was_raised() -> None:
    held = RunHeldError("taken over")
    assert explain(WorkerGroupError("", {0: held}), FOLDER) is held


def test_what_the_controller_met_is_of_the_cluster() -> None:
    error = explain(ControllerError(RuntimeError("no room\nmore")), FOLDER)
    assert isinstance(error, ClusterError)
    assert error.message == "Ray could not run the workers: no room"


def test_as_many_restarts_are_told_as_there_are() -> None:
    heard: list[Note] = []
    watch = Watch(heard.append, max_failures=2)
    for _ in range(3):
        watch.after_exception(None, {0: RuntimeError("odd")})
    assert [note.text for note in heard] == [
        f"worker 0 failed: odd; going on from the last checkpoint (restart {n} of at most 2)" for n in (1, 2)
    ]


def test_limits_are_set_for_a_while_and_leave_what_a_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS_S:
        monkeypatch.delenv(name, raising=False)
    mine = next(iter(LIMITS_S))
    monkeypatch.setenv(mine, "9")
    with limits():
        assert os.environ[mine] == "9"
        assert all(float(os.environ[name]) > 0 for name in LIMITS_S)
    assert {name for name in LIMITS_S if name in os.environ} == {mine}


def test_all_names_are_known_to_ray() -> None:
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    assert set(LIMITS_S) <= ENV_VARS_TO_PROPAGATE


GRAPH = """Graph execution error:

Detected at node PyFunc defined at (most recent call last):
  File "x.py", line 6, in <module>

NeighbourLostError: worker 1 has died
Traceback (most recent call last):
"""
RING = """Graph execution error:

Detected at node CollectiveReduceV2 defined at (most recent call last):
<stack traces unavailable>
Collective ops is aborted by: Socket closed
The error could be from a previous operation."""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GRAPH, "NeighbourLostError: worker 1 has died"),
        (RING, "Collective ops is aborted by: Socket closed"),
        ("division by zero\nmore", "division by zero"),
        ("Graph execution error:", "Graph execution error:"),
        ("", "no message"),
    ],
)
def test_what_happened_is_found_behind_where_in_the_graph_it_did(text: str, reason: str) -> None:
    assert reason_in(text) == reason
