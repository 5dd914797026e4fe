"""What holds for every test: one Hypothesis profile, no AWS settings of the machine, and a list of who uses the compiled kernel.

No test depends on how fast the machine is, and a failure prints what replays it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import botocore.session
import pytest
from hypothesis import HealthCheck, settings

from tests import kernel_use

settings.register_profile(
    "stream",
    deadline=None,
    print_blob=True,
    # On a branch under review the same examples run every time; elsewhere each run tries new ones.
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("stream")

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]

# Each session of botocore would parse the same descriptions of services again, which takes more time than many a test.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

kernel_use.watch()


@pytest.fixture(autouse=True)
def _is_run_without_the_kernel_too(request: pytest.FixtureRequest) -> Iterator[None]:
    kernel_use.called.clear()
    yield
    file = request.node.nodeid.partition("::")[0]
    if kernel_use.called and not kernel_use.is_listed(file):
        pytest.fail(f"this test calls {', '.join(sorted(kernel_use.called))} of the kernel: list {file} in tests/kernel_use.py")
