from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from startup_ray.doctor.checks import (
    FAIL,
    OK,
    WARN,
    Node,
    describe,
    judge_clocks,
    judge_gpus,
    judge_space,
    judge_storage,
    judge_versions,
    look_at_versions,
)

GIB = 2**30
HERE = Node(
    host="a",
    python="3.11.7",
    versions={"ray": "2.60.0", "keras": "3.15.1"},
    now=0.0,
    shm_bytes=8 * GIB,
    disks={"/cache": (50 * GIB, 100 * GIB)},
)


def test_what_is_installed_here_is_what_the_package_asks_for() -> None:
    check = look_at_versions()
    assert check.state == OK, check
    assert "tensorflow" in check.seen


def test_this_machine_describes_itself(tmp_path: Path) -> None:
    node = describe([tmp_path / "not" / "there"])
    ((free, total),) = node.disks.values()
    assert 0 < free < total
    assert {"ray", "keras", "startup-ray"} <= set(node.versions)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"versions": {"ray": "2.59.0", "keras": "3.15.1"}}, "b has ray 2.59.0, here is 2.60.0"),
        ({"versions": {"ray": "2.60.0"}}, "b has keras not, here is 3.15.1"),
        ({"python": "3.12.1"}, "b has Python 3.12.1, here is 3.11.7"),
    ],
)
def test_another_version_on_a_node_is_named(change: dict[str, object], told: str) -> None:
    other = replace(HERE, host="b")
    assert judge_versions(HERE, [HERE, replace(other, python="3.11.9")]).state == OK
    check = judge_versions(HERE, [HERE, replace(other, **change)])  # type: ignore[arg-type]
    assert (check.state, check.seen) == (FAIL, told)
    assert check.hint


def test_a_clock_that_is_off_is_named_either_way() -> None:
    assert judge_clocks({"a": 0.0, "b": -3.0}).state == OK
    for skew in (25.0, -25.0):
        check = judge_clocks({"a": 1.0, "b": skew})
        assert check.state == FAIL
        assert check.seen == "at most 25.0 s apart (b)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shm_bytes": 64 * 2**20}, "a: 0.1 GiB free in /dev/shm"),
        ({"disks": {"/cache": (GIB, 10 * GIB)}}, "a: 1.0 GiB of 10.0 GiB free for /cache"),
        ({"disks": {"/cache": (40 * GIB, 1000 * GIB)}}, "a: 40.0 GiB of 1000.0 GiB free for /cache"),
    ],
)
def test_little_room_is_a_warning_with_the_place(change: dict[str, object], told: str) -> None:
    assert judge_space([HERE]).state == OK
    check = judge_space([HERE, replace(HERE, **change)])  # type: ignore[arg-type]
    assert (check.state, check.seen) == (WARN, told)
    assert check.hint


def test_storage_that_one_node_does_not_see_fails() -> None:
    assert judge_storage("runs", "", [HERE]).state == OK
    assert judge_storage("runs", "disk full", [HERE]).seen == "disk full"
    check = judge_storage("runs", "", [HERE, replace(HERE, host="b", storage_error="does not see it")])
    assert (check.state, check.seen) == (FAIL, "b: does not see it")


def test_gpus_that_tensorflow_does_not_see_fail() -> None:
    assert judge_gpus(0, 0).state == OK
    assert judge_gpus(2, 1).state == OK
    assert judge_gpus(2, 0).state == FAIL
