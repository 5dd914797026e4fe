"""What holds for every test: one Hypothesis profile, no AWS settings of the machine, libraries as the service has them, and a list of who
uses the compiled kernel.

No test depends on how fast the machine is or on which tests ran before it (``--shuffle``), and a failure prints what replays it.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Generator, Iterator, Sequence
from itertools import groupby
from random import Random, SystemRandom
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck, settings

from stream.cli.loading import settings_of_libraries, uncollected
from tests.libraries import loaded

# Before anything imports them: a library reads its settings when it is loaded.
loaded(settings_of_libraries(os.environ, len(os.sched_getaffinity(0))))

from stream.local.moto import moto  # noqa: E402
from tests import kernel_use  # noqa: E402

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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    # Modules and tests live until the end; to look through them again and again would take a tenth of the time of each worker's collection.
    with uncollected():
        return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle",
        type=lambda seed: SystemRandom().randrange(10**6) if seed == "random" else int(seed),
        metavar="SEED",
        help="run the files, and the tests in each, in the order that SEED stands for; `random` chooses one, which is printed at the end",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("shuffle")) is not None:
        items[:] = shuffled(items, seed)


def shuffled(items: Sequence[pytest.Item], seed: int) -> list[pytest.Item]:
    """``items`` in the order that ``seed`` stands for; those of one file stay together, since they share what is made once for it."""
    random = Random(seed)
    files = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    random.shuffle(files)
    for tests in files:
        random.shuffle(tests)
    return [test for tests in files for test in tests]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (seed := config.getoption("shuffle")) is not None:
        terminalreporter.write_line(f"the order was that of --shuffle {seed}")


def pytest_unconfigure() -> None:
    # A worker in the process of a test has frozen what was there. The interpreter does not free that at its end, of which DuckDB complains.
    gc.unfreeze()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """moto in a process of its own, which all tests of this process share: each has names of its own in it."""
    with moto() as process:
        yield process.url


@pytest.fixture
def aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a region, as every emulator takes them."""
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _is_run_without_the_kernel_too(request: pytest.FixtureRequest) -> Iterator[None]:
    kernel_use.called.clear()
    yield
    file = request.node.nodeid.partition("::")[0]
    if kernel_use.called and not kernel_use.is_listed(file):
        pytest.fail(f"this test calls {', '.join(sorted(kernel_use.called))} of the kernel: list {file} in tests/kernel_use.py")
