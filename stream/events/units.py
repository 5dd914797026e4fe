"""What happens to records and units between the source and the seal."""

from __future__ import annotations

from dataclasses import dataclass

from stream.events.base import Event


@dataclass(frozen=True, slots=True)
class PageReceived(Event):
    """GetRecords answered, or records were pushed. ``records`` counts Kinesis records, ``user_records`` those inside them.

    ``oldest``: when the first of them arrived, in seconds since 1970; None if there is none, or it is not known.
    """

    records: int
    user_records: int
    payload_bytes: int
    behind_ms: int
    seconds: float
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class PartOpened(Event):
    """Reading of a shard of a source that ends has begun; the shard is made up of ``pieces`` (objects, files of dead letters)."""

    pieces: int


@dataclass(frozen=True, slots=True)
class EventIncomplete(Event):
    """A function was told about ``delivered`` records; the stream holds ``missing`` others between them, which were read too.

    The event source mapping has filter criteria, or several batches of a shard at a time. Nothing is lost by it.
    """

    delivered: int
    missing: int


@dataclass(frozen=True, slots=True)
class RecordsTransformed(Event):
    """A function has transformed the records of one event for Firehose, whose stream is ``stream``.

    ``outcomes``: (outcome, records). ``answer_bytes``: size of the answer, which Lambda limits to 6 MB. Nothing is committed here.
    """

    outcomes: tuple[tuple[str, int], ...]
    payload_bytes: int
    answer_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PollRepeated(Event):
    """A poll failed and is repeated after ``wait`` seconds; ``why``: throttled, expired_iterator, error."""

    why: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class SubscriptionEnded(Event):
    """A subscription has ended; the next one begins after ``wait`` seconds. ``why``: renewed, silence, budget, in_use, broken."""

    why: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class RetrievalChanged(Event):
    """From now on the shard is read in another way; ``to``: polling (because of ``why``), fan_out."""

    to: str
    why: str


@dataclass(frozen=True, slots=True)
class BudgetWaited(Event):
    """A reader waited for ``seconds`` because the byte budget was used up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class UnitCut(Event):
    """A unit's bounds are fixed; ``trigger``: rows, bytes, age, pressure, shard_end, drain, unreadable."""

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
    """Records of one unit became dead letters, for one reason at one stage."""

    stage: str
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class IntentCreated(Event):
    """The unit's manifest exists; from now on, nobody else can commit this range differently."""

    after: int
    last: int


@dataclass(frozen=True, slots=True)
class IntentAdopted(Event):
    """This worker completes a unit that another one began; ``how``: in_place (its files were there), render (they are made again)."""

    after: int
    last: int
    how: str


@dataclass(frozen=True, slots=True)
class IntentAmended(Event):
    """An adopted intent now lists this worker's files; its ``superseded`` earlier files are removed once it is sealed."""

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
    """This worker sealed a link of the chain; if ``last`` is None, the link says that the shard has ended."""

    after: int
    last: int | None


@dataclass(frozen=True, slots=True)
class UnitSealed(Event):
    """The unit is committed. ``outcomes`` maps outcomes to numbers of records; ages are in seconds since arrival in the stream."""

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
    """Files that no sealed manifest lists were removed."""

    files: int


@dataclass(frozen=True, slots=True)
class CallRepeated(Event):
    """A storage or coordination call is repeated after ``wait`` seconds because its outcome is unknown."""

    call: str
    detail: str
    wait: float
