"""One row per record read: its outcome, and where its rows were written. A segment belongs to its unit and is committed with it.

A segment is a Parquet file with the columns

    seq         text     decimal sequence number
    sub         UInt32   index of the user record inside its KPL aggregate
    arrival_ms  Int64    approximate arrival in the stream, milliseconds since 1970 UTC
    outcome     text     label of ``Outcome``
    stage       text     the stage that decided the outcome; null for written records
    reason      text     why; null if there is no reason
    trace_id    text     the producer's trace id, 32 hex digits; null if the record has none
    parent_id   text     the producer's span id, 16 hex digits; null if ``trace_id`` is null
    rows        Int32    rows that the stages made from it; 0 unless written
    bytes       Int32    length of its payload
    dest_<i>    UInt32   for the i-th target of the header: index into the header's objects; null if it was not written there
    row_<i>     Int32    its first row in that object, counted from 0
    rows_<i>    Int32    how many of its rows the target took; only if a sink of the definition has a condition

and a header: JSON in the file's metadata under ``stream.ledger``. Equal inputs give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stream.audit import context
from stream.audit.buffers import lengths
from stream.audit.columns import Column, dictionary_encoded, parquet
from stream.audit.fates import COLUMNS, Fates, fates_of
from stream.audit.placement import destinations, rows_taken, rows_written
from stream.audit.set_hash import SetHash
from stream.batch import ARRIVAL, ATTEMPT, DATA, SEQUENCE, SHARD, SUBSEQUENCE, Batch, Outcome
from stream.contracts import Encoded, OutputFile, Transformed
from stream.native import Kind, Memory, series

NAME: Final = "ledger"
"""The segment's sink name in manifests and metrics."""
VERSION: Final = 1
REJECTS: Final = "rejects"
"""The target of dead letters."""
_KEY: Final = b"stream.ledger"
_COLUMNS: Final = ("seq", "sub", "arrival_ms", "outcome", "stage", "reason", "trace_id", "parent_id", "rows", "bytes")
_DICTIONARY_ENCODED: Final = frozenset((*COLUMNS, "first_shard"))
_FATES_AT: Final = _COLUMNS.index(COLUMNS[0])
_FIRST_READ: Final = {SHARD: "first_shard", SEQUENCE: "first_seq", SUBSEQUENCE: "first_sub", ATTEMPT: "attempt"}


class LedgerObject(msgspec.Struct, frozen=True):
    """An object that contains rows of the unit; ``key`` is relative to the target's root."""

    sink: str
    key: str
    rows: int
    size: int
    sha256: str


class UnitFacts(msgspec.Struct, frozen=True):
    """Which unit a segment describes: the records with ``after < sequence number <= last`` of one shard.

    ``pipeline`` is the digest of the definition that ran.
    """

    application: str
    stream: str
    shard: str
    after: int
    last: int
    pipeline: str


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts about a segment as a whole. ``outcomes``: numbers of records by label; ``targets``: the target of each ``dest_<i>``.

    ``routed``: a sink has a condition, so a target need not have all rows of a record; ``rows_<i>`` says how many it has.

    ``again``: the records had been read before, from another place; the columns ``first_shard``, ``first_seq`` and ``first_sub`` say where,
    and ``attempt`` how often they had been tried.

    Positions are decimal text, for readers whose JSON numbers are floats.
    """

    version: int
    application: str
    stream: str
    shard: str
    after: str
    last: str
    pipeline: str
    records: int
    outcomes: dict[str, int]
    targets: tuple[str, ...]
    objects: tuple[LedgerObject, ...]
    set_hash: str
    again: bool = False
    routed: bool = False

    @property
    def destinations(self) -> list[str]:
        """The names of the columns that say where a record was written, target by target."""
        return [f"{kind}_{index}" for index in range(len(self.targets)) for kind in ("dest", "row", *(["rows"] if self.routed else []))]


class SegmentError(ValueError):
    """The bytes are not a ledger segment that this version can read."""


@dataclass(frozen=True)
class Segment:
    """A segment in memory. ``rows`` has one row per record in stream order; ``fates``, if set, has the columns that ``rows`` lacks."""

    header: Header
    rows: pl.DataFrame
    fates: Fates | None = field(default=None, compare=False, repr=False)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """``rows`` with all columns; those of ``fates`` are built on first use."""
        if self.fates is None:
            return self.rows
        columns = self.rows.get_columns()
        return pl.DataFrame([*columns[:_FATES_AT], *(self.fates.column(name) for name in COLUMNS), *columns[_FATES_AT:]])

    @property
    def size(self) -> int:
        """Size in memory, in bytes, before ``frame`` is first used."""
        return int(self.rows.estimated_size()) + (self.fates.codes.nbytes if self.fates is not None else 0)

    def problems(self) -> list[str]:
        """Every discrepancy between the rows and the header; empty for an unchanged segment."""
        header, frame = self.header, self.frame
        found: list[str] = []
        if frame.height != header.records:
            found.append(f"{frame.height} rows, but the header says {header.records} records")
        if _counts(frame["outcome"]) != header.outcomes:
            found.append(f"outcomes are {_counts(frame['outcome'])}, but the header says {header.outcomes}")
        if SetHash.of(frame["seq"], frame["sub"]).hex != header.set_hash:
            found.append("the set hash of the rows is not the header's")
        digits = max(len(header.after), len(header.last), int(frame["seq"].str.len_bytes().max() or 0))  # type: ignore[arg-type]
        positions = frame.select(pl.col("seq").str.pad_start(digits, "0"), "sub")
        if not _strictly_ascending(positions):
            found.append("the records are not in strictly ascending order")
        bounds = pl.lit(header.after.zfill(digits)), pl.lit(header.last.zfill(digits))
        outside = positions.filter(~pl.col("seq").is_between(*bounds, closed="right"))
        if not outside.is_empty():
            found.append(f"{outside.height} records are outside ({header.after}, {header.last}]")
        return found + self._lost_destinations() + self._lost_records()

    def _lost_destinations(self) -> list[str]:
        found = []
        for index, target in enumerate(self.header.targets):
            used = self.frame[f"dest_{index}"].drop_nulls().unique()
            wrong = [number for number in used if number >= len(self.header.objects) or self.header.objects[number].sink != target]
            if wrong:
                found.append(f"dest_{index} points at objects {wrong}, which are not of {target}")
        return found

    def _lost_records(self) -> list[str]:
        """Records that are not where their outcome says.

        A written one is in every sink, or in one at least if a sink has a condition; a dead letter among the rejects; others are nowhere.
        """
        there = {target: pl.col(f"dest_{index}").is_not_null() for index, target in enumerate(self.header.targets)}
        rejected = there.pop(REJECTS, None)
        written, dead = (pl.col("outcome") == each.label for each in (Outcome.WRITTEN, Outcome.DEAD_LETTERED))
        wrong = {"neither written nor dead letters, and are in a target": ~(written | dead) & pl.any_horizontal(False, *there.values())}
        if there:
            wrong["said to be written, and no target has them"] = written & ~pl.any_horizontal(*there.values())
        for target, found in there.items() if not self.header.routed and len(there) > 1 else ():
            wrong[f"said to be written, and {target} lacks them"] = written & ~found & pl.any_horizontal(*there.values())
        if rejected is not None:
            wrong["dead letters, and are not among the rejects"] = dead & ~rejected
            wrong["among the rejects, and are no dead letters"] = rejected & ~dead
        wrong["dead letters, and are in a target"] = dead & pl.any_horizontal(False, *there.values())
        counts = self.frame.select(condition.sum().alias(why) for why, condition in wrong.items()).row(0, named=True)
        return [f"{count} records are {why}" for why, count in counts.items() if count]


def make_segment(
    unit: UnitFacts, batch: Batch, transformed: Transformed, placed: Mapping[str, Encoded], paths: Sequence[str] = context.DEFAULT_PATHS
) -> Segment:
    """The unit's segment.

    ``placed`` has the files and placement of each sink, by sink name and in the pipeline's order, dead letters included. ``paths`` are the
    JSON paths at which a payload may hold the producer's trace context.

    Raises:
        ValueError: ``transformed`` does not name each record of ``batch`` exactly once.
    """
    facts = _facts(batch, transformed, paths)
    fates = fates_of(transformed.settled, batch.rows)
    objects: list[LedgerObject] = []
    columns: list[pl.Series] = []
    for index, (target, encoded) in enumerate(placed.items()):
        columns += destinations(facts.height, index, encoded.placement, len(objects))
        columns += [rows_taken(facts.height, index, encoded.placement)] if transformed.taken else []
        objects += [LedgerObject(target, file.key, file.rows, len(file.body), file.sha256) for file in encoded.files]
    header = Header(
        version=VERSION,
        application=unit.application,
        stream=unit.stream,
        shard=unit.shard,
        after=str(unit.after),
        last=str(unit.last),
        pipeline=unit.pipeline,
        records=batch.rows,
        outcomes=fates.counts(),
        targets=tuple(placed),
        objects=tuple(objects),
        set_hash=SetHash.of(facts["seq"], facts["sub"]).hex,
        again=batch.first_read is not None,
        routed=bool(transformed.taken),
    )
    again = batch.first_read.rename(_FIRST_READ).get_columns() if batch.first_read is not None else []
    return Segment(header, facts.hstack([*again, *columns]), fates)


def encode_segment(segment: Segment, stem: str) -> OutputFile:
    """The file of ``segment``, named ``<stem>.<sha16>.parquet``, for the target ``ledger``; ``read_segment`` returns an equal segment."""
    body = _write(segment)
    digest = hashlib.sha256(body).hexdigest()
    return OutputFile(NAME, f"{stem}.{digest[:16]}.parquet", body, segment.header.records, digest)


def read_segment(body: bytes) -> Segment:
    """The segment that ``encode_segment`` wrote.

    Raises:
        SegmentError: it is not Parquet, has no header or other columns, or is of a newer version.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        header, frame = _header(file.metadata.metadata or {}), pl.from_arrow(file.read())
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"a ledger segment is a Parquet file, but these {len(body)} bytes are not: {error}"
        raise SegmentError(msg) from error
    first = tuple(_FIRST_READ.values()) if header.again else ()
    expected = [*_COLUMNS, *first, *header.destinations]
    if not isinstance(frame, pl.DataFrame) or frame.columns != expected:
        msg = f"the ledger segment should have the columns {', '.join(expected)}; it has {', '.join(file.schema.names)}"
        raise SegmentError(msg)
    return Segment(header, frame)


def _header(metadata: Mapping[bytes, bytes]) -> Header:
    text = metadata.get(_KEY)
    if text is None:
        msg = f"this Parquet file is not a ledger segment: its metadata has no {_KEY.decode()!r}"
        raise SegmentError(msg)
    try:
        version = msgspec.json.decode(text, type=dict[str, Any]).get("version")
        if version != VERSION:
            msg = f"ledger segment version {version} cannot be read by this build, which knows {VERSION}; use a newer build"
            raise SegmentError(msg)
        return msgspec.json.decode(text, type=Header)
    except msgspec.DecodeError as error:
        msg = f"the header of the ledger segment cannot be read: {error}"
        raise SegmentError(msg) from error


def _facts(batch: Batch, transformed: Transformed, paths: Sequence[str]) -> pl.DataFrame:
    """All columns except fates and destinations, one row per record of the batch."""
    rows = rows_written(transformed, batch.rows)
    frame = batch.frame
    read = [
        frame[SEQUENCE].alias("seq"),
        frame[SUBSEQUENCE].alias("sub"),
        frame[ARRIVAL].cast(pl.Int64).alias("arrival_ms"),
    ]
    producer = context.extract(frame[DATA], paths, traced=batch.traced)
    size = series("bytes", Memory(Kind.INT32, batch.rows, None, (lengths(frame[DATA]).astype("int32"),)))
    return pl.DataFrame([*read, *producer, rows, size])


def _write(segment: Segment) -> bytes:
    rows, fates = segment.rows, segment.fates
    columns: dict[str, Column] = {
        column.name: dictionary_encoded(column) if column.name in _DICTIONARY_ENCODED else column for column in rows.get_columns()
    }
    if fates is not None:
        columns |= {name: fates.dictionary_column(name) for name in COLUMNS}
    ordered = {name: columns.pop(name) for name in _COLUMNS} | columns
    return parquet(ordered, rows.height, {_KEY: msgspec.json.encode(segment.header, order="sorted")})


def _counts(outcomes: pl.Series) -> dict[str, int]:
    return dict(sorted(outcomes.value_counts().cast({"outcome": pl.String}).iter_rows()))


def _strictly_ascending(positions: pl.DataFrame) -> bool:
    before, after = positions.head(-1), positions.slice(1).rename({"seq": "seq_", "sub": "sub_"})
    ordered = (pl.col("seq") < pl.col("seq_")) | ((pl.col("seq") == pl.col("seq_")) & (pl.col("sub") < pl.col("sub_")))
    return bool(pl.concat([before, after], how="horizontal").select(ordered.all()).item())
