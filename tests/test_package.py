from __future__ import annotations

import startup_ray


def test_every_public_name_is_there_and_no_other() -> None:
    assert dir(startup_ray) == sorted(startup_ray.__all__)
    for name in startup_ray.__all__:
        assert getattr(startup_ray, name) is not None


def test_a_name_that_does_not_exist() -> None:
    assert not hasattr(startup_ray, "nothing")
