"""What the tasks of shards work with; assembled once per worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from stream.budget import ByteBudget
from stream.commit.committer import Committer, RenderedUnit
from stream.commit.cut import Limits
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.commit.retry import Repeater
from stream.concurrency import ObservableEvent
from stream.contracts import Checkpoints, Clock, Emit, Shard, Source, Start
from stream.events import Event
from stream.lease.paused import Pause
from stream.worker.coordination.leasing import Leases
from stream.worker.coordination.pausing import PauseWatch
from stream.worker.halts.breaker import Breaker
from stream.worker.objects.watching import Watcher
from stream.worker.process.credentials import CredentialKeeper
from stream.worker.receivers.exporting import ExportTask
from stream.worker.recipes.recipe import CutUnit, Recipe, Rendered
from stream.worker.recipes.refreshing import CurrentRecipe, Refresher
from stream.worker.tables.loading import Loader


class Stop(StrEnum):
    """Why work on a shard that has not ended stopped at a safe point.

    ``CAUGHT_UP``: the source was asked for no more than this. ``DRAIN``: the worker ends. ``HANDED_OVER``: another worker is to have the
    shard. ``PAUSED``: an operator has paused it; its lease stays here.
    """

    CAUGHT_UP = "caught_up"
    DRAIN = "drain"
    HANDED_OVER = "handed_over"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Parts:
    """The collaborators of every shard task of one worker.

    ``render`` runs ``recipe.render`` off the event loop. ``render_again`` re-reads an intent's range and renders it with the definition
    that the intent names. ``leases`` says which shards are this worker's; None if all are. ``pauses`` says what operators have paused; None
    if that does not count here. ``admit_gaps``: records that expired unread become a recorded gap; otherwise their shard halts.
    ``once``: the run is over when the source pauses or ends.
    """

    worker: str
    source: Source
    log: CommitLog
    committer: Committer
    checkpoints: Checkpoints
    current: CurrentRecipe
    render: Callable[[Recipe, CutUnit], Awaitable[Rendered]]
    render_again: Callable[[Shard, Start, Manifest], Awaitable[RenderedUnit]]
    limits: Limits
    breaker: Breaker
    admit_gaps: bool
    budget: ByteBudget
    draining: ObservableEvent
    clock: Clock
    emit: Emit
    repeat: Repeater
    export: ExportTask | None = None
    leases: Leases | None = None
    pauses: PauseWatch | None = None
    once: bool = False
    refresher: Refresher | None = None
    keeper: CredentialKeeper | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe in use now."""
        return self.current.now

    @property
    def stop_listeners(self) -> list[list[Callable[[], None]]]:
        """The lists whose members are called whenever ``stops`` may have changed."""
        sources = (self.draining, self.leases, self.pauses)
        return [source.listeners for source in sources if source is not None]

    def stops(self, shard: Shard) -> Stop | None:
        """Why work on the shard must stop at the next safe point; None if it need not."""
        if self.draining.is_set():
            return Stop.DRAIN
        if self.leases is not None and self.leases.wanted_elsewhere(shard.stream, shard.shard_id):
            return Stop.HANDED_OVER
        return Stop.PAUSED if self.pause_of(shard) is not None else None

    def pause_of(self, shard: Shard) -> Pause | None:
        """Why the shard is paused; None if it is not."""
        return None if self.pauses is None else self.pauses.now.reading(shard.stream, shard.shard_id)


@dataclass(frozen=True, slots=True)
class StreamParts:
    """One stream of a worker: its name, its pinned start, and what the tasks of its shards work with.

    ``watcher`` claims the objects of a watched source.
    """

    stream: str
    start: Start
    parts: Parts
    loaders: tuple[Loader, ...] = ()
    watcher: Watcher | None = None


class HeldBytes:
    """The part of the byte budget that one shard occupies. However the shard's task ends, it releases all of it."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count a page of ``size`` bytes, which have been acquired."""
        self._bytes += size

    def release(self, size: int) -> None:
        """Release ``size`` bytes."""
        self._bytes -= size
        self._budget.release(size)

    def release_all(self) -> None:
        """Release whatever is still held."""
        self.release(self._bytes)


def to_nobody(_event: Event) -> None:
    """An ``Emit`` that drops events, for code that only inspects and must not count as a reader."""


def to_all(*listeners: Emit) -> Emit:
    """One ``Emit`` that passes every event to each of ``listeners``."""

    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit
