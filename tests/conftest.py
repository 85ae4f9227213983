from __future__ import annotations

import os
import signal

# Read before the first test imports anything: no test may touch the user's folders or report usage.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import pytest
from hypothesis import settings

# A busy machine is no fault of what is tested.
settings.register_profile("whenever", deadline=None)
settings.load_profile("whenever")


@pytest.fixture(scope="session", autouse=True)
def heeds_ctrl_c() -> None:
    """Also where a shell has started the tests in the background, for which it ignores Ctrl-C in all of them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
