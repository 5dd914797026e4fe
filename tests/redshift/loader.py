"""A loader in a process of its own, so that tests can kill it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.contracts import Emit
from stream.lease.loader import Hold
from stream.pipeline.checks.lint import check_content
from stream.testing.crash import CrashAt, Point
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.loading import Loader
from stream.worker.tables.parts import LoaderParts

CONTEXT = get_context("forkserver")


class Always:
    """A lease that every loader has at once: the promises must hold without leases."""

    async def take(self) -> Hold:
        return Hold.KEPT

    async def give_up(self) -> None:
        """Nothing to give up."""


async def open_loader(text: str, base: Path, worker: str, emit: Emit, stack: AsyncExitStack, *, leased: bool) -> Loader:
    """The loader of the one table in the pipeline ``text``; AWS is what the environment says."""
    pipeline = check_content(text.encode(), "pipeline.yaml", base, {}).pipeline
    assert pipeline is not None
    session, clock = AwsSession(), SystemClock()
    stores = Stores.open(pipeline, base, session)
    log = CommitLog(stores.state, pipeline.application, clock, worker)
    definitions = Definitions(stores.state, base, {}, clock)
    (parts,) = await open_loader_parts(pipeline, "events", session, log, stores.targets, definitions, (worker, clock, emit), stack)
    return Loader(parts if leased else _without_lease(parts))


def _without_lease(parts: LoaderParts) -> LoaderParts:
    always: Any = Always()
    return dataclasses.replace(parts, lease=always)


async def _run(text: str, base: Path, worker: str, at: str, *, leased: bool) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    emit: Emit = CrashAt(Point.parse(at), die) if at else (lambda event: None)
    async with AsyncExitStack() as stack:
        loader = await open_loader(text, base, worker, emit, stack, leased=leased)
        await loader.run()


def _enter(text: str, base: str, environment: Mapping[str, str], worker: str, at: str, leased: bool) -> None:
    os.environ.update(environment)
    asyncio.run(_run(text, Path(base), worker, at, leased=leased))


class LoaderProcess:
    """Runs until it is killed; ``at`` names an event in which it kills itself."""

    def __init__(self, text: str, base: Path, environment: Mapping[str, str], worker: str, *, at: str = "", leased: bool = True) -> None:
        self._process: Any = CONTEXT.Process(target=_enter, args=(text, str(base), dict(environment), worker, at, leased))
        self._process.start()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._process.kill()

    @property
    def alive(self) -> bool:
        return bool(self._process.is_alive())

    def wait(self, seconds: float) -> int | None:
        """The exit code, None if it has not ended."""
        self._process.join(seconds)
        return None if self._process.exitcode is None else int(self._process.exitcode)

    def close(self) -> None:
        """Kill the process if it still runs, and free what it holds."""
        self._process.kill()
        self._process.join()
        self._process.close()


def prepare() -> None:
    """Import the service once for all loaders to come."""
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    CONTEXT.set_forkserver_preload(["tests.redshift.loader", "tests.collected"])
