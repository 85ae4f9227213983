from __future__ import annotations

import pytest

from startup_ray.submit.jobs_api import Details
from startup_ray.submit.verdict import exit_code, in_words


def ended(status: str, code: int | None = None, message: str = "") -> Details:
    return Details(submission_id="x", status=status, driver_exit_code=code, message=message, metadata={})


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        (ended("SUCCEEDED", 0), 0, "succeeded"),
        (ended("STOPPED"), 130, "was stopped"),
        (ended("STOPPED", -15), 130, "was stopped"),
        (ended("FAILED", 3), 3, "failed with exit code 3"),
        (ended("FAILED", -9), 137, "failed with exit code 137"),
        (
            ended("FAILED", None, "no reason\nruntime_env setup failed"),
            5,
            "failed, and not by itself: runtime_env setup failed",
        ),
        (ended("FAILED"), 5, "failed, and not by itself: no reason given"),
    ],
)
def test_the_exit_code_is_the_drivers_own(job: Details, code: int, words: str) -> None:
    assert exit_code(job) == code
    assert in_words(job) == words
