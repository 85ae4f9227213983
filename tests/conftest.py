from __future__ import annotations

import os

# Read before the first test imports anything: no test may touch the user's folders or report usage.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from hypothesis import settings

# A busy machine is no fault of what is tested.
settings.register_profile("whenever", deadline=None)
settings.load_profile("whenever")
