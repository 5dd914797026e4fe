"""What was read of the shared state of one stream at one moment: the log, the stream, the leases, the tables, the notes of halts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stream.audit.completeness import State, Unclaimed
from stream.commit.manifest import Kind
from stream.metrics import thresholds
from stream.operations.progress.backlog import LastClaim
from stream.worker.halts.note import Halt

SILENT_SECONDS: Final = 60.0
"""A lease that was not renewed for so long, or for three failover times if these are longer, has no living owner. Another worker takes it
within one failover time, so this leaves room for clocks that differ."""

FAILOVERS: Final = 3


def silent_after(failover: float) -> float:
    """Seconds without a renewal after which a lease has no living owner."""
    return max(SILENT_SECONDS, FAILOVERS * failover)


FRESH: Final = timedelta(minutes=1)
"""If the newest sealed record of a shard is younger than this and ``flush.age`` together, the stream need not be asked what follows it."""

MARGIN: Final = timedelta(seconds=5)
"""By how much arrival times within a shard may be out of order; as for ``stream complete``."""

STREAM: Final = "stream"
LEASE_ROW: Final = "lease row"
OBJECTS: Final = "objects"
LEASES: Final = "lease table"
LOG: Final = "commit log"
PIN: Final = "note which stream the log is of"
DAMAGED_PIN: Final = "damaged note which stream the log is of"
"""Names of parts of the shared state that others depend on."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One unfinished shard. Times are UTC; what is None is not known, or does not exist.

    ``state`` and ``why``: see ``audit.completeness.Standing``. ``unread``: arrival of the oldest unsealed record, if one is known to wait;
    ``reach``: everything that arrived before is sealed. ``last``: the kind of the last link, sealed ``sealed_at`` by ``sealed_by``.
    ``begun``: when the unit was begun that is not sealed, by ``begun_by``. ``blocked``: a parent is not read to its end yet. ``leased``:
    the shard has a lease; ``owner`` and ``renewed`` are the lease's, and ``renewed`` is None if none of our workers renews it. ``renews``:
    whether it was seen to be renewed, looked at twice; None if it was not, because its date leaves no doubt.
    ``elsewhere``: the owner is a worker of another application, such as a Java KCL. ``out_of_reach``, ``bars_listing``: what the owner says
    of itself, see ``lease.rows.Lease``. ``paused``: the pause in words, if an operator has paused the reading of the shard. ``objects`` and
    ``size``: claimed objects of it that are not known to be sealed to their ends, and their bytes; None for a stream.
    """

    name: str
    open: bool
    state: State
    why: str = ""
    unread: datetime | None = None
    reach: datetime | None = None
    position: int = 0
    last: Kind | None = None
    sealed_at: datetime | None = None
    sealed_by: str = ""
    begun: datetime | None = None
    begun_by: str = ""
    blocked: bool = False
    leased: bool = False
    owner: str | None = None
    renewed: datetime | None = None
    renews: bool | None = None
    elsewhere: bool = False
    out_of_reach: bool = False
    bars_listing: bool = False
    halt: Halt | None = None
    paused: str | None = None
    objects: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectsStatus:
    """What is known of the objects of `source.s3` beside their shards; what is None could not be read, or does not exist.

    ``watched``: a worker that stays up should claim them, within ``limit`` seconds. ``messages`` wait in the queue, and ``hidden`` ones are
    with workers. ``given_up``: how many objects could not be read to their ends, the last of them at ``given_up_at``, ``recent`` of them
    within the last hour; ``newest`` says of some which and why.
    """

    watched: bool
    limit: float
    unclaimed: Unclaimed | None = None
    last_claim: LastClaim | None = None
    messages: int | None = None
    hidden: int | None = None
    given_up: int | None = None
    given_up_at: datetime | None = None
    recent: int = 0
    newest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parked:
    """A shard whose loads need a person, why, and since when."""

    shard: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class TableStatus:
    """How far a table is loaded. ``waiting``: shards with sealed rows that are not loaded, the oldest sealed at ``since``.

    ``paused``: the pause in words, if an operator has paused the loads.
    """

    sink: str
    waiting: int = 0
    since: datetime | None = None
    parked: tuple[Parked, ...] = ()
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class InUse:
    """A definition, by the digest that it had last, when units were ``sealed`` with it, and by which ``worker`` the last of them."""

    digest: str
    worker: str
    sealed: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Outcomes of the units sealed after ``since`` that were looked at: all, or of each shard the newest ones only.

    ``causes``: stage, reason and number of records, in ``files`` of the ``of`` files of dead letters.
    """

    since: datetime
    units: int
    records: int
    dead: int
    causes: tuple[tuple[str, str, int], ...] = ()
    files: int = 0
    of: int = 0
    gaps: tuple[tuple[str, datetime], ...] = ()
    """Shards for which the log records a loss, and when."""
    definitions: tuple[InUse, ...] = ()
    """With which the units were made; empty if all were made with one."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The export of spans: how many shards have sealed units that are not exported, and when the oldest of these was sealed.

    ``halted``: those of them whose export a worker has halted, and why. ``blocking``: checkpoints wait for the export.
    """

    waiting: int = 0
    since: datetime | None = None
    halted: tuple[tuple[str, Halt], ...] = ()
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of the shared state that could not be read, and why."""

    part: str
    why: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that was read about one stream at ``asked_at``, by the clock of Kinesis if that answered.

    ``failover``: seconds, None if there are no leases. ``stream_halt``: the note that the whole stream is halted. ``other_stream``: why the
    stream is not the one that the log is of; empty if it is. ``why``: why nothing is known of the shards. ``holes``: ranges of hash
    keys that no lease covers. ``objects``: None for a stream.
    """

    stream: str
    asked_at: datetime
    flush_age: timedelta
    retention: timedelta | None = None
    failover: float | None = None
    reach: datetime | None = None
    shards: tuple[ShardStatus, ...] = ()
    finished: int = 0
    tables: tuple[TableStatus, ...] = ()
    dead_letters: DeadLetters | None = None
    exported: Exported | None = None
    holes: int = 0
    stream_halt: Halt | None = None
    other_stream: str = ""
    why: str = ""
    unread: tuple[Unread, ...] = ()
    objects: ObjectsStatus | None = None

    def since(self, moment: datetime | None) -> float | None:
        """Seconds from ``moment`` to the snapshot."""
        return None if moment is None else max(0.0, (self.asked_at - moment).total_seconds())

    @property
    def silent_after(self) -> float:
        """Seconds without a renewal after which a lease has no living owner."""
        return silent_after(self.failover or 0.0)

    def lag(self, shard: ShardStatus) -> float | None:
        """Seconds such that no record that has waited longer is known to be missing; None if that is not known."""
        seconds = self.since(shard.reach)
        return None if seconds is None else max(0.0, seconds - MARGIN.total_seconds())

    def left(self, shard: ShardStatus) -> float | None:
        """Seconds until the oldest unsealed record of ``shard`` expires; None if none waits, or the retention is not known."""
        waited = self.since(shard.unread)
        return None if waited is None or self.retention is None else self.retention.total_seconds() - waited

    def read_by_nobody(self, shard: ShardStatus) -> bool:
        """Whether no living worker has the lease of ``shard``."""
        if self.failover is None or not shard.open or shard.blocked or shard.paused or any(each.part == LEASES for each in self.unread):
            return False
        silent = shard.renewed is not None and not self._lives(shard.renewed, renews=shard.renews)
        return not shard.leased or silent or (shard.owner is None and shard.renewed is None)

    def _lives(self, renewed: datetime, *, renews: bool | None) -> bool:
        """Whether the owner of a lease lives, by what was seen, or else by the date of its last renewal."""
        return (self.since(renewed) or 0.0) <= self.silent_after if renews is None else renews

    @property
    def wrong_clocks(self) -> dict[str, float]:
        """Workers that live, although their last renewals are dated long ago or ahead: by how many seconds their clocks are behind."""
        return {
            each.owner: (self.asked_at - each.renewed).total_seconds()
            for each in self.shards
            if each.renews and each.owner and each.renewed
        }

    @property
    def first_holder(self) -> str | None:
        """The worker that lists objects for all, as ``lease.decide.first_holder`` chooses it."""
        owned = [each for each in self.shards if each.owner and not self.read_by_nobody(each)]
        barred = {each.owner for each in owned if each.bars_listing}
        owned.sort(key=lambda each: (each.owner in barred, each.out_of_reach, each.name))
        return owned[0].owner if owned else None

    @property
    def sealed_at(self) -> datetime | None:
        """When the last unit of an unfinished shard was sealed."""
        return max((each.sealed_at for each in self.shards if each.sealed_at is not None), default=None)

    @property
    def worst(self) -> list[ShardStatus]:
        """The shards in the order in which a person should look at them."""
        return sorted(self.shards, key=lambda each: (-self._trouble(each), each.name))

    def is_fine(self, shard: ShardStatus) -> bool:
        """Whether ``shard`` needs no attention: a worker reads it, and nothing has waited for longer than a unit takes."""
        return self._trouble(shard) <= 0.0

    def _trouble(self, shard: ShardStatus) -> float:
        if shard.halt is not None or shard.state in _LOST:
            return 2 * _HALTED_SECONDS
        if self.read_by_nobody(shard) or shard.state is State.SILENT:
            return _HALTED_SECONDS
        if shard.paused is not None:
            return _PAUSED_SECONDS
        late = (self.since(shard.unread) or 0.0) - self.flush_age.total_seconds() - FRESH.total_seconds()
        slow = (self.since(shard.begun) or 0.0) - thresholds.COMMIT_SECONDS
        return max(late, slow)

    @property
    def workers(self) -> list[WorkerStatus]:
        """Who has leases, or, without leases, who sealed the last unit of a shard; those that do not live any more first."""
        found: dict[str, list[ShardStatus]] = {}
        for each in self.shards:
            name = each.sealed_by if self.failover is None else each.owner
            if name:
                found.setdefault(name, []).append(each)
        rows = []
        for name, shards in found.items():
            latest = max(
                (each for each in shards if each.renewed is not None), key=lambda each: each.renewed or self.asked_at, default=None
            )
            renewed = None if latest is None else latest.renewed
            sealed = max((each.sealed_at for each in shards if each.sealed_at is not None and each.sealed_by == name), default=None)
            lives = None if latest is None or renewed is None else self._lives(renewed, renews=latest.renews)
            rows.append(WorkerStatus(name, len(shards), renewed, sealed, lives))
        return sorted(rows, key=lambda row: (row.living is not False, row.name))


_HALTED_SECONDS: Final = 10.0**12
"""More than any record waits."""

_PAUSED_SECONDS: Final = 1.0
"""A paused shard is shown, after those that are late."""

_LOST: Final = frozenset({State.EXPIRED, State.GONE})


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker: how many shards it has, when it last renewed a lease and sealed a unit; ``living`` is None if that is not known."""

    name: str
    shards: int
    renewed: datetime | None
    sealed: datetime | None
    living: bool | None
