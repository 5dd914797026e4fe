"""Whether everything that arrived before a moment is sealed, and loaded if sinks are tables. Pure: the caller has read everything.

The reasoning: Kinesis timestamps a record when it stores it, and promises neither that timestamps are exact nor that they ascend within a
shard (``Record`` in the Kinesis API reference). So a record proves nothing about those after it, unless there is a bound on how far
timestamps may be out of order: the ``margin``. With it, whatever follows a record that arrived at ``a`` arrived at ``a - margin`` or later,
and so did whatever is put once the service's clock shows ``a``. Each answer here is such a bound: the *reach* of a shard, before which no
record of it is missing. A moment is complete if no reach is earlier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from stream.batch import ORIGIN

FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)
"""The reach of a shard that has ended and is sealed: nothing can be missing."""


class State(StrEnum):
    """The state of one shard.

    ``COMPLETE``: everything before the moment is sealed. ``ENDED``: the whole shard is sealed. ``UNSEALED``: a record that arrived before
    the moment is not sealed. ``EARLY``: no record is known to be missing, but some may still come. ``EXPIRED``: records after the sealed
    ones may have expired unread, and the log has no gap for them yet. ``GONE``: the stream does not list the shard, and its end is not in
    the log. ``SILENT``: the stream did not answer.
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
    """The answer: yes, not yet, or unknown."""

    COMPLETE = "complete"
    NOT_YET = "not_yet"
    UNKNOWN = "unknown"

    @property
    def complete(self) -> bool:
        """Whether the answer is yes."""
        return self is Verdict.COMPLETE


class Found(StrEnum):
    """What was found after the sealed part of a shard. ``TIP``: no record yet; ``END``: the shard's end; the others as in ``State``."""

    RECORD = "record"
    TIP = "tip"
    END = "end"
    EXPIRED = "expired"
    GONE = "gone"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Lookahead:
    """What the stream has after the sealed part: when the next record arrived, the children of an ended shard, or why neither is known."""

    found: Found
    arrived: datetime | None = None
    children: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sealed:
    """How far one shard is sealed, according to the log.

    ``position``: the last sequence number; ``arrived``: the latest arrival in the last link, None if it has none. ``note``: the last link's
    kind if it is not a unit, such as a gap.
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
        """The earliest arrival time that proves that no later record arrived before ``until``."""
        return self.until + self.margin


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one shard. ``reach``: no record that arrived before it is missing; None if unknown."""

    shard: str
    state: State
    position: int
    sealed_to: datetime | None
    reach: datetime | None
    why: str = ""


def settled(sealed: Sealed, question: Question) -> bool:
    """Whether the log alone shows that this shard is complete, so that the stream need not be read."""
    return sealed.ended or (sealed.arrived is not None and sealed.arrived >= question.enough)


def stand(sealed: Sealed, lookahead: Lookahead | None, asked_at: datetime, question: Question) -> Standing:
    """The state of a shard. ``lookahead`` was read when the service's clock showed ``asked_at`` or later; it is None only if not needed."""
    if sealed.ended:
        return Standing(sealed.shard, State.ENDED, sealed.position, sealed.arrived, FOR_EVER, sealed.note)
    if lookahead is None:
        reach = None if sealed.arrived is None else sealed.arrived - question.margin
        state = State.COMPLETE if settled(sealed, question) else State.SILENT
        return Standing(sealed.shard, state, sealed.position, sealed.arrived, reach, sealed.note)
    state, reach, why = _from_lookahead(sealed, lookahead, asked_at, question)
    return Standing(sealed.shard, state, sealed.position, sealed.arrived, reach, "; ".join(filter(None, (why, sealed.note))))


def _from_lookahead(sealed: Sealed, lookahead: Lookahead, asked_at: datetime, question: Question) -> tuple[State, datetime | None, str]:
    match lookahead.found:
        case Found.END:
            return State.ENDED, FOR_EVER, "nothing is left in the shard; its end is not in the log yet"
        case Found.TIP:
            if asked_at >= question.enough:
                return State.COMPLETE, asked_at - question.margin, "no record follows"
            return State.EARLY, asked_at - question.margin, f"no record follows, but the service's clock shows {_text(asked_at)}"
        case Found.RECORD if lookahead.arrived is not None:
            if lookahead.arrived >= question.enough:
                return State.COMPLETE, lookahead.arrived - question.margin, f"the next record arrived at {_text(lookahead.arrived)}"
            state = State.UNSEALED if lookahead.arrived < question.until else State.EARLY
            return state, lookahead.arrived - question.margin, f"a record that arrived at {_text(lookahead.arrived)} is not sealed"
    # Units are sealed in shard order, so everything up to the last sealed record is complete.
    reach = None if sealed.arrived is None else sealed.arrived - question.margin
    return State(lookahead.found.value), reach, lookahead.why


def unlisted(children: Iterable[str], known: Collection[str]) -> list[Standing]:
    """Child shards that neither the stream nor the log has: what happened to their records is unknown."""
    why = "it continues a shard that has ended, but the stream does not list it and the log does not know it"
    return [Standing(name, State.GONE, ORIGIN, None, None, why) for name in sorted(set(children).difference(known))]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A table compared with the log: ``units`` and ``rows`` from before the moment that are sealed, but not loaded.

    ``oldest``: when their first record arrived. ``parked``: shard and reason of loads that need an operator. ``paused``: why an operator
    has paused the loads. ``why``: why it is not known what is loaded.
    """

    sink: str
    units: int = 0
    rows: int = 0
    oldest: datetime | None = None
    parked: tuple[tuple[str, str], ...] = ()
    why: str = ""
    paused: str = ""

    @property
    def done(self) -> bool:
        """Whether it is certain that nothing is left to load."""
        return not self.units and not self.why


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Objects that are there and in no shard: ``fresh``, which nobody has claimed, and ``changed``, of which another version is claimed.

    ``fresh_since`` and ``changed_since``: when the oldest was last modified. ``examples``: keys of some that changed.
    """

    fresh: int = 0
    fresh_since: datetime | None = None
    changed: int = 0
    changed_since: datetime | None = None
    examples: tuple[str, ...] = ()

    @property
    def reach(self) -> datetime:
        """None of them was modified before it."""
        return min((each for each in (self.fresh_since, self.changed_since) if each is not None), default=FOR_EVER)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one stream. ``reach``: no record that arrived before it is missing in files or tables; None if unknown.

    ``tables`` is None if they were not examined, ``unclaimed`` if what is read are not objects.
    """

    stream: str
    verdict: Verdict
    reach: datetime | None
    asked_at: datetime
    shards: tuple[Standing, ...]
    tables: tuple[Loaded, ...] | None = None
    why: str = ""
    unclaimed: Unclaimed | None = None

    @property
    def sealed(self) -> bool:
        """Whether every shard is complete. Shards of objects that are finished are not listed any more, so there may be none."""
        return (bool(self.shards) or self.unclaimed is not None) and not self.why and all(each.state in DONE for each in self.shards)


def answer(
    stream: str,
    standings: Sequence[Standing],
    tables: Sequence[Loaded] | None,
    asked_at: datetime,
    question: Question,
    why: str = "",
    unclaimed: Unclaimed | None = None,
) -> Answer:
    """The answer for a stream whose shards, or objects, were listed when the service's clock showed ``asked_at`` or later.

    A shard that is created later has no older records, within ``margin``. ``why``: a reason why the stream as a whole is not complete.
    """
    listed = asked_at - question.margin
    outside = FOR_EVER if unclaimed is None else unclaimed.reach
    known = bool(standings) or (unclaimed is not None and not why)
    reaches = [listed, outside, *(each.reach for each in standings), *(_reach(each, question) for each in tables or ())]
    reach = min((each for each in reaches if each is not None), default=None) if known and None not in reaches else None
    missing = bool(why) or not known or min(listed, outside) < question.until
    missing = missing or any(each.state not in DONE | {State.SILENT} for each in standings) or any(each.units for each in tables or ())
    unknown = tables is None or any(each.state is State.SILENT for each in standings) or any(each.why for each in tables)
    verdict = Verdict.NOT_YET if missing else Verdict.UNKNOWN if unknown else Verdict.COMPLETE
    return Answer(stream, verdict, reach, asked_at, tuple(standings), None if tables is None else tuple(tables), why, unclaimed)


def _reach(table: Loaded, question: Question) -> datetime | None:
    if table.done:
        return FOR_EVER
    return None if table.oldest is None else table.oldest - question.margin


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
