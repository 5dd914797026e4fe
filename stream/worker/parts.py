"""What a shard's task works with, put together once per worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from stream.budget import ByteBudget
from stream.commit.committer import Committer, RenderedUnit
from stream.commit.cut import Limits
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.commit.repeat import Repeater
from stream.contracts import Checkpoints, Clock, Emit, Shard, Source, Start
from stream.errors import Fatal, Halted, LeaseLost, Superseded
from stream.events import Event
from stream.worker.breaker import Breaker
from stream.worker.credentials import CredentialKeeper
from stream.worker.exporting import ExportTask
from stream.worker.leasing import Leases
from stream.worker.loading import Loader
from stream.worker.recipe import Cooked, CutUnit, Recipe
from stream.worker.refreshing import CurrentRecipe, Refresher

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """The collaborators of every shard task of one worker.

    ``cook`` runs ``recipe.cook`` off the event loop. ``render_again`` re-reads an intent's range and cooks it with the definition that
    the intent names. ``leases`` says which shards are this worker's; None if all are. ``admit_gaps``: records that expired unread
    become a recorded gap; otherwise their shard halts. ``once``: the source pauses or ends, and the work is then done.
    """

    worker: str
    source: Source
    log: CommitLog
    committer: Committer
    checkpoints: Checkpoints
    current: CurrentRecipe
    cook: Callable[[Recipe, CutUnit], Awaitable[Cooked]]
    render_again: Callable[[Shard, Start, Manifest], Awaitable[RenderedUnit]]
    limits: Limits
    breaker: Breaker
    admit_gaps: bool
    budget: ByteBudget
    draining: Bell
    clock: Clock
    emit: Emit
    repeat: Repeater
    export: ExportTask | None = None
    leases: Leases | None = None
    once: bool = False
    refresher: Refresher | None = None
    keeper: CredentialKeeper | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe for units that are cooked now."""
        return self.current.now

    def stops(self, shard: Shard) -> bool:
        """Whether work on the shard must stop at a safe point now: the worker drains, or another worker is to have the shard."""
        return self.draining.is_set() or self.hands_over(shard)

    def hands_over(self, shard: Shard) -> bool:
        """Whether another worker is to have the shard."""
        return self.leases is not None and self.leases.wanted_elsewhere(shard.stream, shard.shard_id)


@dataclass(frozen=True, slots=True)
class StreamParts:
    """One stream of a worker: its name, its pinned start, and what the tasks of its shards work with."""

    stream: str
    start: Start
    parts: Parts
    loaders: tuple[Loader, ...] = ()


_BY_WEIGHT: Final = (Fatal, Halted, LeaseLost, Superseded)


def weightiest(group: ExceptionGroup[Exception]) -> Exception:
    """Of several errors that ended tasks together, the one that decides what happens next; an unforeseen one weighs most."""
    leaves = [leaf for error in group.exceptions for leaf in ([weightiest(error)] if isinstance(error, ExceptionGroup) else [error])]
    foreseen = {kind: error for kind in reversed(_BY_WEIGHT) for error in leaves if isinstance(error, kind)}
    unforeseen = [error for error in leaves if not isinstance(error, _BY_WEIGHT)]
    return unforeseen[0] if unforeseen else foreseen[min(foreseen, key=_BY_WEIGHT.index)]


class Bell(asyncio.Event):
    """An event that also calls ``listeners`` when it is set, so that nobody has to poll it."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the event and call all listeners."""
        super().set()
        for listener in tuple(self.listeners):
            listener()


async def unless(bell: Bell, work: Awaitable[T]) -> T | None:
    """The result of ``work``; None if ``bell`` rings first or has rung: then ``work`` is cancelled and has ended when this returns."""
    limit = asyncio.timeout(None)

    def ring() -> None:
        if limit.when() is None:
            limit.reschedule(0.0)

    bell.listeners.append(ring)
    try:
        async with limit:
            if bell.is_set():
                ring()
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        return None
    finally:
        bell.listeners.remove(ring)


class Held:
    """The part of the byte budget that one shard occupies. However the shard's task ends, all of it is given back."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count a page that occupies ``size`` bytes, which are acquired already."""
        self._bytes += size

    def release(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self._bytes -= size
        self._budget.release(size)

    def release_all(self) -> None:
        """Give back what is left."""
        self.release(self._bytes)


def to_nobody(_event: Event) -> None:
    """An ``Emit`` that drops events, for code that only looks and does not count as a reader."""


def to_all(*listeners: Emit) -> Emit:
    """One ``Emit`` that tells each of ``listeners``."""

    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit
