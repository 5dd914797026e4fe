"""Finds where a record was written, and from which record a row came, using the unit's ledger segment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import polars as pl

from stream.audit.chain import Link, LinkKind
from stream.audit.criteria import Criterion
from stream.audit.ledger import Segment
from stream.audit.objects import Area, url_in
from stream.errors import DefinitionError

_WANTED: Final = re.compile(
    r"(?:(?:(?P<stream>[A-Za-z0-9_.@-]+)/)?(?P<shard>[A-Za-z_.-][A-Za-z0-9_.-]*):)?(?P<seq>\d{1,60})(?::(?P<sub>\d{1,10}))?"
)


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """A record to look for. A shard, stream or sub-sequence number of None matches any."""

    sequence: int
    subsequence: int | None = None
    shard: str | None = None
    stream: str | None = None

    @staticmethod
    def parse(text: str) -> RecordQuery:
        """Parse ``[[<stream>/]<shard>:]<sequence>[:<sub>]``, the format of ``messaging.message.id`` and the lineage columns.

        Raises:
            DefinitionError: ``text`` does not have this form.
        """
        match = _WANTED.fullmatch(text.strip())
        if match is None:
            msg = f"{text!r} names no record; give its sequence number, or <shard>:<sequence>:<sub> as in spans and lineage columns"
            raise DefinitionError(msg)
        return RecordQuery(int(match["seq"]), None if match["sub"] is None else int(match["sub"]), match["shard"], match["stream"])


class Row(msgspec.Struct, frozen=True):
    """A row of a file, counted from 0."""

    url: str
    row: int


class Place(msgspec.Struct, frozen=True):
    """A file, and its first row that comes from the record, counted from 0. ``compacted``: where that row is in the compacted dataset.

    ``loaded``: the table that has the row; the file may have been removed since.
    """

    sink: str
    url: str
    row: int
    compacted: Row | None = None
    loaded: str = ""


class Fate(msgspec.Struct, frozen=True):
    """What happened to one record, and in which unit."""

    stream: str
    shard: str
    sequence: str
    subsequence: int
    outcome: str
    stage: str | None
    reason: str | None
    arrival_ms: int
    payload_bytes: int
    rows: int
    places: tuple[Place, ...]
    trace_id: str
    span_id: str
    producer_trace_id: str | None
    producer_span_id: str | None
    unit_after: str
    unit_last: str
    unit_records: int
    pipeline: str
    worker: str
    created_at: str
    sealed_by: str
    sealed_at: str
    ledger: str
    first_read: str | None = None
    """``<shard>:<sequence>:<sub>`` where the record was first read, if this is a later attempt."""
    attempts_before: int = 0
    """How often the record had been tried before."""
    taken_back: str = ""
    """How a rewind took the unit back; what it wrote is gone, and its records are processed again in the shard's next generation."""

    def fits(self, ledger: Iterable[Criterion]) -> bool:
        """Whether all of ``ledger``, which is about columns of the ledger, holds of the record. What is not known of it does not."""
        known = {
            "outcome": self.outcome,
            "stage": self.stage,
            "reason": self.reason,
            "trace_id": self.producer_trace_id,
            "parent_id": self.producer_span_id,
        }
        return all(known[each.column] == each.value for each in ledger)


def find(segment: Segment, wanted: RecordQuery) -> pl.DataFrame:
    """The ledger rows of the records that ``wanted`` names: one, none, or several of a KPL aggregate."""
    rows = segment.frame.with_row_index("at").filter(pl.col("seq") == str(wanted.sequence))
    return rows if wanted.subsequence is None else rows.filter(pl.col("sub") == wanted.subsequence)


def are_apart(segment: Segment, sink: str) -> bool:
    """Whether rows of one record may be in several files of ``sink``: the ledger then names only the first."""
    several = sum(item.sink == sink for item in segment.header.objects) > 1
    return several and int(segment.frame["rows"].max() or 0) > 1  # type: ignore[arg-type]


def record_of(segment: Segment, sequence: str, subsequence: int) -> pl.DataFrame:
    """The ledger row of the record that the lineage columns of a row name; an empty frame if there is none."""
    seq, sub = ("first_seq", "first_sub") if segment.header.again else ("seq", "sub")
    return segment.frame.with_row_index("at").filter((pl.col(seq) == sequence) & (pl.col(sub) == subsequence))


def record_at(segment: Segment, sink: str, key: str, row: int) -> pl.DataFrame:
    """The ledger row of the record from which row ``row`` (from 0) of an object came; an empty frame if there is none.

    Not if rows of one record ``are_apart``.
    """
    number = next((index for index, item in enumerate(segment.header.objects) if (item.sink, item.key) == (sink, key)), None)
    if number is None or sink not in segment.header.targets or not 0 <= row < segment.header.objects[number].rows:
        return segment.frame.with_row_index("at").clear()
    column = segment.header.targets.index(sink)
    candidates = segment.frame.with_row_index("at").filter((pl.col(f"dest_{column}") == number) & (pl.col(f"row_{column}") <= row))
    return candidates.sort(f"row_{column}").tail(1)


EXPLAINED: Final = {
    LinkKind.GAP: ("expired_gap", "records of this range expired in the stream before they were read"),
    LinkKind.FOREIGN: ("foreign", "another application on the same leases processed the records of this range"),
    LinkKind.SKIP: ("skipped", "an operator decided not to process the records of this range"),
}
"""Outcome and reason of all records of a range that is no unit."""


def without_ledger(link: Link, sequence: str, subsequence: int, outcome: str, reason: str, places: tuple[Place, ...] = ()) -> Fate:
    """The ``Fate`` of a record of which no ledger says anything: ``outcome`` and ``reason`` are known otherwise."""
    return Fate(
        stream=link.stream,
        shard=link.shard,
        sequence=sequence,
        subsequence=subsequence,
        outcome=outcome,
        stage=None,
        reason=reason,
        arrival_ms=0,
        payload_bytes=0,
        rows=0,
        places=places,
        trace_id="",
        span_id="",
        producer_trace_id=None,
        producer_span_id=None,
        unit_after=str(link.after),
        unit_last=str(link.last),
        unit_records=link.records,
        pipeline=link.pipeline,
        worker=link.worker,
        created_at=link.created_at,
        sealed_by=link.sealed_by,
        sealed_at=link.sealed_at,
        ledger="",
    )


def fates(
    rows: pl.DataFrame, segment: Segment, unit: Link, areas: Mapping[str, Area], ids: Mapping[tuple[str, int], tuple[str, str]]
) -> list[Fate]:
    """The ``Fate`` of each of the ledger ``rows``; ``ids`` has each record's trace id and span id as exported."""
    found = []
    ledger = unit.ledger
    for row in rows.iter_rows(named=True):
        places = [
            Place(target, url_in(unit, target, segment.header.objects[row[f"dest_{index}"]].key, areas), row[f"row_{index}"])
            for index, target in enumerate(segment.header.targets)
            if row[f"dest_{index}"] is not None
        ]
        trace_id, span_id = ids[row["seq"], row["sub"]]
        found.append(
            Fate(
                stream=unit.stream,
                shard=unit.shard,
                sequence=row["seq"],
                subsequence=row["sub"],
                outcome=row["outcome"],
                stage=row["stage"],
                reason=row["reason"],
                arrival_ms=row["arrival_ms"],
                payload_bytes=row["bytes"],
                rows=row["rows"],
                places=tuple(places),
                trace_id=trace_id,
                span_id=span_id,
                producer_trace_id=row["trace_id"],
                producer_span_id=row["parent_id"],
                unit_after=str(unit.after),
                unit_last=str(unit.last),
                unit_records=unit.records,
                pipeline=unit.pipeline,
                worker=unit.worker,
                created_at=unit.created_at,
                sealed_by=unit.sealed_by,
                sealed_at=unit.sealed_at,
                ledger=areas["ledger"].url_of(ledger.key) if ledger else "",
                first_read=f"{row['first_shard']}:{row['first_seq']}:{row['first_sub']}" if segment.header.again else None,
                attempts_before=row["attempt"] if segment.header.again else 0,
            )
        )
    return found
