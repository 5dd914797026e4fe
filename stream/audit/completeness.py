"""Whether everything that arrived before a moment is sealed, and loaded if sinks are tables. Pure: everything was read before.

The reasoning: Kinesis stamps a record when it stores it, and promises neither that the stamp is exact nor that stamps rise within a
shard (``Record`` in the Kinesis API reference). So a single record proves nothing about the ones after it, unless there is a bound on how
far stamps may be out of order: that is ``margin``. With it, whatever follows a record that arrived at ``a`` arrived at ``a - margin`` or
later, and so did whatever is put once the service's clock shows ``a``. Every answer here is such a bound: the *reach* of a shard, before
which nothing of it is missing. A moment is complete if no reach is earlier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from stream.batch import ORIGIN

FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)
"""The reach of a shard that has ended: nothing can be missing of it any more."""


class State(StrEnum):
    """The state of one shard.

    ``COMPLETE``: everything before the moment is sealed. ``ENDED``: everything that the shard ever held is. ``UNSEALED``: a record that
    arrived before the moment is not. ``EARLY``: none is known to be missing, but some may still come. ``EXPIRED``: records after the
    sealed ones may have expired unread, and there is no gap for them yet. ``GONE``: the stream does not list the shard, and its end is not
    in the log. ``SILENT``: the stream did not answer.
    """

    COMPLETE = "complete"
    ENDED = "ended"
    UNSEALED = "unsealed"
    EARLY = "early"
    EXPIRED = "expired"
    GONE = "gone"
    SILENT = "silent"


DONE: Final = frozenset({State.COMPLETE, State.ENDED})


class Verdict(StrEnum):
    """The answer: yes, no, or that nobody can tell."""

    COMPLETE = "complete"
    NOT_YET = "not_yet"
    UNKNOWN = "unknown"

    @property
    def complete(self) -> bool:
        """Whether the answer is yes."""
        return self is Verdict.COMPLETE


class Found(StrEnum):
    """The result of a look after the sealed part of a shard; ``TIP``: nothing is there now. The others as in ``State``."""

    RECORD = "record"
    TIP = "tip"
    END = "end"
    EXPIRED = "expired"
    GONE = "gone"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Behind:
    """What the stream holds after the sealed part: when the next record arrived, the children of an ended shard, or why neither."""

    found: Found
    arrived: datetime | None = None
    children: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sealed:
    """How far one shard is sealed, by the log.

    ``position``: the last sequence number, ``arrived`` the latest arrival of what the last link stands for, None where it does not say.
    ``note``: what else the last link is, such as a gap.
    """

    shard: str
    position: int = ORIGIN
    arrived: datetime | None = None
    ended: bool = False
    children: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """Is everything complete that arrived before ``until``? ``margin``: how far arrival times may be out of order."""

    until: datetime
    margin: timedelta

    @property
    def enough(self) -> datetime:
        """The earliest arrival after which no record can follow that arrived before ``until``."""
        return self.until + self.margin


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one shard. ``reach``: nothing of it that arrived before is missing; None if unknown."""

    shard: str
    state: State
    position: int
    sealed_to: datetime | None
    reach: datetime | None
    why: str = ""


def settled(sealed: Sealed, question: Question) -> bool:
    """Whether the log alone answers for this shard, so that the stream need not be asked."""
    return sealed.ended or (sealed.arrived is not None and sealed.arrived >= question.enough)


def stand(sealed: Sealed, behind: Behind | None, asked_at: datetime, question: Question) -> Standing:
    """The state of a shard. ``behind`` is None only if the log settled it; it was asked once the service's clock showed ``asked_at``."""
    if sealed.ended:
        return Standing(sealed.shard, State.ENDED, sealed.position, sealed.arrived, FOR_EVER, sealed.note)
    if behind is None:
        reach = None if sealed.arrived is None else sealed.arrived - question.margin
        state = State.COMPLETE if settled(sealed, question) else State.SILENT
        return Standing(sealed.shard, state, sealed.position, sealed.arrived, reach, sealed.note)
    state, reach, why = _looked(sealed, behind, asked_at, question)
    return Standing(sealed.shard, state, sealed.position, sealed.arrived, reach, why or sealed.note)


def _looked(sealed: Sealed, behind: Behind, asked_at: datetime, question: Question) -> tuple[State, datetime | None, str]:
    match behind.found:
        case Found.END:
            return State.ENDED, FOR_EVER, "nothing is left in the shard; its end is not in the log yet"
        case Found.TIP:
            if asked_at >= question.enough:
                return State.COMPLETE, asked_at - question.margin, "nothing lies behind"
            return State.EARLY, asked_at - question.margin, f"nothing lies behind, but the service's clock shows {_text(asked_at)}"
        case Found.RECORD if behind.arrived is not None:
            if behind.arrived >= question.enough:
                return State.COMPLETE, behind.arrived - question.margin, f"what comes next arrived at {_text(behind.arrived)}"
            state = State.UNSEALED if behind.arrived < question.until else State.EARLY
            return state, behind.arrived - question.margin, f"a record that arrived at {_text(behind.arrived)} is not sealed"
    # Units are sealed in the order of the shard, so everything up to the last sealed record is complete.
    reach = None if sealed.arrived is None else sealed.arrived - question.margin
    return State(behind.found.value), reach, behind.why


def unlisted(children: Iterable[str], known: Collection[str]) -> list[Standing]:
    """Child shards that neither the stream lists nor the log knows: what became of their records is unknown."""
    why = "it continues a shard that has ended, but the stream does not list it and the log does not know it"
    return [Standing(name, State.GONE, ORIGIN, None, None, why) for name in sorted(set(children).difference(known))]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The state of a table compared with the log: sealed units with rows from before the moment that are not loaded.

    ``oldest``: when the first record of them arrived. ``parked``: shard and reason of what needs an operator.
    """

    sink: str
    units: int = 0
    rows: int = 0
    oldest: datetime | None = None
    parked: tuple[tuple[str, str], ...] = ()
    why: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing is left to load, as far as it is known."""
        return not self.units and not self.why


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one stream. ``reach``: nothing that arrived before is missing, in the lake and in tables; None: unknown.

    ``tables`` is None if they were not asked.
    """

    stream: str
    verdict: Verdict
    reach: datetime | None
    asked_at: datetime
    shards: tuple[Standing, ...]
    tables: tuple[Loaded, ...] | None = None
    why: str = ""

    @property
    def sealed(self) -> bool:
        """Whether every shard is complete."""
        return bool(self.shards) and all(each.state in DONE for each in self.shards)


def answer(
    stream: str, standings: Sequence[Standing], tables: Sequence[Loaded] | None, asked_at: datetime, question: Question, why: str = ""
) -> Answer:
    """The answer for a stream whose shards were listed once the service's clock showed ``asked_at``.

    A shard that is created later holds nothing older than that, within ``margin``. ``why``: what keeps the stream as a whole from being
    complete.
    """
    listed = asked_at - question.margin
    reaches = [listed, *(each.reach for each in standings), *(_reach(each, question) for each in tables or ())]
    reach = min((each for each in reaches if each is not None), default=None) if standings and None not in reaches else None
    missing = bool(why) or not standings or listed < question.until
    missing = missing or any(each.state not in DONE | {State.SILENT} for each in standings) or any(each.units for each in tables or ())
    doubtful = tables is None or any(each.state is State.SILENT for each in standings) or any(each.why for each in tables)
    verdict = Verdict.NOT_YET if missing else Verdict.UNKNOWN if doubtful else Verdict.COMPLETE
    return Answer(stream, verdict, reach, asked_at, tuple(standings), None if tables is None else tuple(tables), why)


def _reach(table: Loaded, question: Question) -> datetime | None:
    if table.done:
        return FOR_EVER
    return None if table.oldest is None else table.oldest - question.margin


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
