"""What happens to shards, workers and leases."""

from __future__ import annotations

from dataclasses import dataclass

from stream.events.base import Event


@dataclass(frozen=True, slots=True)
class ShardStarted(Event):
    """Reading begins after ``position``."""

    position: int


@dataclass(frozen=True, slots=True)
class ShardEnded(Event):
    """The shard has been read to its end, and its last unit is sealed."""

    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShardReleased(Event):
    """This worker stops working on the shard at a safe point; ``why``: drain, caught_up, handed_over, paused, lease_lost."""

    why: str


@dataclass(frozen=True, slots=True)
class ShardPaused(Event):
    """An operator has paused the shard, so that it is not read; its lease stays with this worker. ``until``: empty if it has no end.

    ``behind``: seconds since the arrival of the last record that is known to be committed.
    """

    by: str
    note: str
    until: str
    behind: float


@dataclass(frozen=True, slots=True)
class ShardResumed(Event):
    """The shard is no longer paused; this worker continues to read it where it stopped."""


@dataclass(frozen=True, slots=True)
class RecordsExpired(Event):
    """Records after ``after`` up to ``last`` were lost in the stream before they were read; the log now says so."""

    after: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShardHalted(Event):
    """The shard stands still until a person acts. ``shared``: whichever worker takes it; if not, only for this deployment."""

    reason: str
    shared: bool = True


@dataclass(frozen=True, slots=True)
class StreamResumed(Event):
    """What the stream as a whole was halted for is over, and it goes on by itself; ``shard`` is empty."""


@dataclass(frozen=True, slots=True)
class NotificationFailed(Event):
    """The notification that the shard has halted could not be sent by ``channel`` (sns, webhook, state); the log says it.

    ``state``: the note for ``stream status`` could not be written or removed.
    """

    channel: str
    detail: str


@dataclass(frozen=True, slots=True)
class StreamDescribed(Event):
    """The stream keeps records for ``retention`` seconds and has ``open_shards`` open shards; ``shard`` is empty."""

    retention: float
    open_shards: int


@dataclass(frozen=True, slots=True)
class StreamSucceeded(Event):
    """The stream ``arn`` was deleted and created again, and the log goes on with the new one; times of creation; ``shard`` is empty."""

    arn: str
    former: str
    created: str


@dataclass(frozen=True, slots=True)
class ShardStalled(Event):
    """Nothing has moved in the shard for ``seconds``, and nothing is known to hold it up; the process asks to be restarted."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StoreHung(Event):
    """A call to the `file:` store ``store`` has not returned for ``seconds``. ``detail``: which, and what to do. ``shard`` is empty."""

    store: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreAnswered(Event):
    """Every call to the `file:` store ``store`` returns again. ``shard`` is empty."""

    store: str


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """The event loop of the process has not run for ``seconds``; the lines `stack_taken` that follow say why. ``shard`` is empty."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StackTaken(Event):
    """Where ``count`` threads or tasks (``kind``) of the process stand, some of which are ``names``, after SIGUSR1 or `loop_blocked`.

    ``frames``: places in the source, innermost last. ``age``: seconds since the oldest of the tasks was created; ``still``: seconds for
    which none of them has moved, as far as is known. ``shard`` is empty.
    """

    kind: str
    names: tuple[str, ...]
    count: int
    age: float | None
    still: float | None
    frames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CredentialsRenewed(Event):
    """AWS credentials found by ``method`` are valid until ``expires``, in seconds since 1970; 0: they do not expire. ``shard`` is empty."""

    method: str
    expires: float


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """The worker process is up; ``shard`` is empty."""

    worker: str
    version: str


@dataclass(frozen=True, slots=True)
class MemoryShort(Event):
    """The memory ``limit`` of the container is less than the ``least`` that a worker of this pipeline needs (bytes). It may be killed.

    ``detail``: for people, with a remedy. ``shard`` is empty.
    """

    limit: int
    least: int
    detail: str


@dataclass(frozen=True, slots=True)
class LogLinesDropped(Event):
    """``lines`` lines that belong before this one were dropped, since nobody read standard error. ``shard`` is empty."""

    lines: int


@dataclass(frozen=True, slots=True)
class WorkerFailed(Event):
    """The process ends because it cannot continue, with exit code 1, or 2 where the pipeline is wrong; ``shard`` is empty."""

    reason: str


@dataclass(frozen=True, slots=True)
class DrainStarted(Event):
    """A signal asked the worker to stop; ``shard`` is empty."""

    deadline: float


@dataclass(frozen=True, slots=True)
class LeaseTaken(Event):
    """This worker now has the shard's lease; ``why``: free, expired, stolen, own, assigned, refused.

    ``refused``: its owner had no access, and kept it. ``previous``: the previous owner, or empty.
    """

    why: str
    previous: str


@dataclass(frozen=True, slots=True)
class LeaseDropped(Event):
    """This worker no longer has the shard's lease; ``why``: released, handed_over, lost, expired, vanished, refused.

    ``refused``: another worker took it, since this one had no access.
    """

    why: str


@dataclass(frozen=True, slots=True)
class LeaseVanished(Event):
    """Somebody deleted the row of a lease that this worker holds; it is recreated, and the commit log says where to continue."""

    key: str


@dataclass(frozen=True, slots=True)
class LeaseCreated(Event):
    """A shard without a lease row got one that begins at ``checkpoint``."""

    checkpoint: str


@dataclass(frozen=True, slots=True)
class CheckpointSetBack(Event):
    """Somebody set a lease row back to ``checkpoint``; the log counts, up to ``position``. To go back, use `stream leases rewind`."""

    checkpoint: str
    position: int | None


@dataclass(frozen=True, slots=True)
class LeaseWritten(Event):
    """One write to the lease table: take, adopt, renew, checkpoint, release, assign, create, delete, note children."""

    operation: str


@dataclass(frozen=True, slots=True)
class LeasesScanned(Event):
    """The whole lease table was read; ``size`` is in bytes."""

    leases: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseRowUnreadable(Event):
    """A row of the lease table is ignored because it is not a lease as the KCL writes it."""

    table: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeaseHoles(Event):
    """``holes`` parts of the stream's hash range are covered by no lease, as seen several times in a row; ``first``: start of the first."""

    holes: int
    first: str


@dataclass(frozen=True, slots=True)
class MixedFleet(Event):
    """Workers of another application hold leases; while they do, leases are balanced by the KCL's rules."""

    workers: int


@dataclass(frozen=True, slots=True)
class FleetLed(Event):
    """From now on, the leader of a KCL 3.x fleet assigns leases to this worker (``led``), or it takes them. ``leader``: if known."""

    led: bool
    leader: str


@dataclass(frozen=True, slots=True)
class LeaseWanted(Event):
    """The leader of a KCL 3.x fleet wants ``worker`` to have the lease; the unit in progress is sealed, then the lease is handed over."""

    worker: str


@dataclass(frozen=True, slots=True)
class ForeignProgress(Event):
    """Another application processed the records after ``after`` up to ``last`` (None: to the shard's end); the log now says so."""

    after: int
    last: int | None


@dataclass(frozen=True, slots=True)
class ShardRewound(Event):
    """An operator rewound the shard: records after ``position`` are processed again, as ``generation`` of its chain."""

    position: int
    generation: int
