"""One Hypothesis profile for all tests: no test depends on how fast the machine is, and a failure prints what replays it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "stream",
    deadline=None,
    print_blob=True,
    # On a branch under review the same examples run every time; elsewhere each run tries new ones.
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("stream")
