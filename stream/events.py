"""Every movement and mishap, as a frozen dataclass. A room emits these and nothing else: counters and logs are made from them.

No event carries record data, partition keys or secrets.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; ``stream`` and ``shard`` say where."""

    stream: str
    shard: str


@dataclass(frozen=True, slots=True)
class PageReceived(Event):
    """GetRecords answered, or records were pushed. ``records`` counts Kinesis records, ``user_records`` what came of them."""

    records: int
    user_records: int
    payload_bytes: int
    behind_ms: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PartOpened(Event):
    """A shard of a source that ends is read: so many ``pieces`` (objects, files of dead letters) make it up."""

    pieces: int


@dataclass(frozen=True, slots=True)
class PollRepeated(Event):
    """A poll gave nothing and is made again after ``wait`` seconds; ``why``: throttled, expired_iterator, error."""

    why: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class SubscriptionEnded(Event):
    """Records are no longer pushed, and are again after ``wait`` seconds; ``why``: renewed, silence, budget, in_use, broken."""

    why: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class RetrievalChanged(Event):
    """The shard is read in another way from now on; ``to``: polling (because of ``why``), fan_out."""

    to: str
    why: str


@dataclass(frozen=True, slots=True)
class BudgetWaited(Event):
    """A reader stood still for ``seconds`` because the byte budget was used up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class UnitCut(Event):
    """A unit's bounds are fixed; ``trigger``: rows, bytes, age, pressure, shard_end, drain."""

    after: int
    last: int
    trigger: str
    records: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class StageApplied(Event):
    """One stage ran over one unit."""

    stage: str
    rows_in: int
    rows_out: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RecordsRejected(Event):
    """Records of one unit went to the dead letters, for one reason at one stage."""

    stage: str
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class IntentCreated(Event):
    """The unit's manifest exists; nobody else can commit this range differently now."""

    after: int
    last: int


@dataclass(frozen=True, slots=True)
class IntentAdopted(Event):
    """This worker completes a manifest that another one created; ``how``: in_place (its files were there), render (made again)."""

    after: int
    last: int
    how: str


@dataclass(frozen=True, slots=True)
class IntentAmended(Event):
    """An adopted intent names this worker's files now; its earlier ones, ``superseded`` in number, go once it is sealed."""

    after: int
    last: int
    superseded: int


@dataclass(frozen=True, slots=True)
class FileWritten(Event):
    """One object of a unit is in place."""

    sink: str
    rows: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ManifestSealed(Event):
    """A link of the chain is final, by this worker's hand; ``last`` None: it says that the shard has ended."""

    after: int
    last: int | None


@dataclass(frozen=True, slots=True)
class UnitSealed(Event):
    """The unit is committed. ``outcomes`` maps outcome label to records; ages in seconds since arrival in the stream."""

    after: int
    last: int
    outcomes: tuple[tuple[str, int], ...]
    oldest_age: float
    newest_age: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpointed(Event):
    """The hint moved up."""

    position: int | None


@dataclass(frozen=True, slots=True)
class RecoveryFinished(Event):
    """The log was followed from the checkpoint to its end."""

    position: int
    units_followed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeftoversRemoved(Event):
    """Files that no sealed manifest lists were taken back."""

    files: int


@dataclass(frozen=True, slots=True)
class CallRepeated(Event):
    """A storage or coordination call is made again after ``wait`` seconds because its outcome is unknown."""

    call: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class SpansExported(Event):
    """One unit's spans reached the collector, which ``rejected`` some; ``parked`` ones it refused for good."""

    accepted: int
    rejected: int
    parked: int


@dataclass(frozen=True, slots=True)
class ExportRefused(Event):
    """The collector did not take ``items`` spans and must not be asked again; ``detail`` is its own word."""

    status: int
    items: int
    detail: str


@dataclass(frozen=True, slots=True)
class ExportHalted(Event):
    """Spans of this shard stand still until somebody mends ``reason``; tried again after ``wait`` seconds. ``status``: HTTP, or 0.

    ``blocking``: checkpoints wait for it, so that the shard stands still as well.
    """

    status: int
    reason: str
    wait: float
    blocking: bool


@dataclass(frozen=True, slots=True)
class ExportResumed(Event):
    """Spans of this shard are exported again, from where they stood."""


@dataclass(frozen=True, slots=True)
class ExportLagged(Event):
    """How long the oldest sealed unit of the shard has been waiting for its export; 0 when none waits."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TelemetryFailed(Event):
    """Spans of the worker's own operations did not reach their collector, in the SDK's words; ``shard`` is empty."""

    detail: str


@dataclass(frozen=True, slots=True)
class UnitsLoaded(Event):
    """Sealed units are in the table of ``sink``; ``lag``: seconds since the first of them was sealed; ``shard`` is empty."""

    sink: str
    units: int
    rows: int
    size: int
    lag: float
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadsWaiting(Event):
    """Units with rows that the loader of ``sink`` sees waiting, the age of the oldest in seconds, and how many shards are parked."""

    sink: str
    units: int
    age: float
    parked: int


@dataclass(frozen=True, slots=True)
class LoadRefused(Event):
    """Loading into ``sink`` did not go through and is tried again after ``wait`` seconds; ``kind``: transient, setup, unexpected."""

    sink: str
    kind: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class LoadParked(Event):
    """The units of one shard are not loaded into ``sink`` until a person acts; they stay staged, and the shard is read on."""

    sink: str
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReferenceRefreshed(Event):
    """Reference tables were read again; ``changed`` of them count from the next unit on. ``age``: seconds since all were known to be good.

    ``definition``: digest of the definition in use now. ``shard`` is empty.
    """

    changed: int
    definition: str
    age: float


@dataclass(frozen=True, slots=True)
class ReferenceRefreshFailed(Event):
    """Reference tables could not be read again, or not be used; those in hand, ``age`` seconds old, stay. ``shard`` is empty."""

    detail: str
    age: float


@dataclass(frozen=True, slots=True)
class ShardStarted(Event):
    """Reading begins behind ``position``."""

    position: int


@dataclass(frozen=True, slots=True)
class ShardEnded(Event):
    """The shard is read to its end and its last unit is sealed."""

    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShardReleased(Event):
    """This worker stops working on the shard at a safe point; ``why``: drain, caught_up, lease_lost."""

    why: str


@dataclass(frozen=True, slots=True)
class RecordsExpired(Event):
    """Records behind ``after`` and not behind ``last`` were lost in the stream before they were read; the log says so now."""

    after: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShardHalted(Event):
    """The shard stands still until a person acts."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotificationFailed(Event):
    """Nobody could be told by ``channel`` (sns, webhook) that the shard has halted; it is in the log only."""

    channel: str
    detail: str


@dataclass(frozen=True, slots=True)
class StreamDescribed(Event):
    """The stream keeps records for ``retention`` seconds and has so many open shards; `shard` is empty."""

    retention: float
    open_shards: int


@dataclass(frozen=True, slots=True)
class ShardStalled(Event):
    """Nothing has moved in the shard for ``seconds`` and nothing is known to hold it up; the process asks to be restarted."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CredentialsRenewed(Event):
    """AWS credentials by ``method`` are good until ``expires``, seconds since 1970; 0: without an end. `shard` is empty."""

    method: str
    expires: float


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """The worker process is up; ``shard`` is empty."""

    worker: str
    version: str


@dataclass(frozen=True, slots=True)
class DrainStarted(Event):
    """A signal asked for the end; ``shard`` is empty."""

    deadline: float


@dataclass(frozen=True, slots=True)
class LeaseTaken(Event):
    """This worker has the shard's lease now; ``why``: free, expired, stolen, own. ``previous``: the owner before, or empty."""

    why: str
    previous: str


@dataclass(frozen=True, slots=True)
class LeaseDropped(Event):
    """This worker has the shard's lease no longer; ``why``: released, lost, expired, vanished."""

    why: str


@dataclass(frozen=True, slots=True)
class LeaseVanished(Event):
    """Somebody deleted the row of a lease that this worker holds; it is made again, and the commit log says where to go on."""

    key: str


@dataclass(frozen=True, slots=True)
class LeaseCreated(Event):
    """A shard without a lease row got one that begins at ``checkpoint``."""

    checkpoint: str


@dataclass(frozen=True, slots=True)
class LeaseWritten(Event):
    """One write to the lease table: take, renew, checkpoint, release, create, delete."""

    operation: str


@dataclass(frozen=True, slots=True)
class LeasesScanned(Event):
    """The lease table was looked at; ``size`` in bytes."""

    leases: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseRowUnreadable(Event):
    """A row of the lease table is passed over because it is no lease as KCL writes it."""

    table: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeaseHoles(Event):
    """How many parts of the stream's hash range no lease covers, as seen several times in a row; ``first`` begins the first."""

    holes: int
    first: str


@dataclass(frozen=True, slots=True)
class MixedFleet(Event):
    """Workers of another application hold leases, so leases are balanced by KCL's rules while they do."""

    workers: int


@dataclass(frozen=True, slots=True)
class ForeignProgress(Event):
    """Another application processed the records behind ``after`` up to ``last`` (None: to the shard's end); the log says so now."""

    after: int
    last: int | None


@dataclass(frozen=True, slots=True)
class ShardRewound(Event):
    """An operator rewound the shard: records behind ``position`` are processed again, as ``generation`` of its chain."""

    position: int
    generation: int
