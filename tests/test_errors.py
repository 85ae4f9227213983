from __future__ import annotations

import pickle

import pytest

from startup_ray import errors
from startup_ray.errors import DataError, RunHeldError, StartupRayError


def _tree(kind: type[StartupRayError]) -> list[type[StartupRayError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


@pytest.mark.parametrize("kind", _tree(StartupRayError))
def test_every_error_keeps_its_fields_across_processes(kind: type[StartupRayError]) -> None:
    error = kind("what", where="there", hint="do this", result={"items": 1})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert copy.document() == error.document()


@pytest.mark.parametrize("kind", _tree(StartupRayError))
def test_the_drawing_names_every_error_with_its_exit_code(kind: type[StartupRayError]) -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if f"{kind.__name__} " in line]
    assert [line.split(kind.__name__)[1].split()[0] for line in lines] == [str(kind.exit_code)]


def test_text_names_the_place_and_the_way_out() -> None:
    error = RunHeldError("process 7 is writing this folder", where="/runs/a-1", hint="wait for it")
    assert str(error) == "/runs/a-1: process 7 is writing this folder\n  wait for it"


def test_only_a_threshold_carries_a_result() -> None:
    assert "result" not in DataError("too few").document()
    assert DataError("too few", result={"items": 3}).document()["result"] == {"items": 3}
