"""OTLP requests for one sealed unit: a span (or log record) for each record, and spans for what happened to the unit.

Everything is computed from the manifest and the ledger segment, so that exporting a unit again gives the same bytes. Records of one
outcome, reason and destination differ in a few fields of fixed width only; each such group is encoded at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Any, Final

import numpy as np
import polars as pl

from stream.audit import ids, wire
from stream.audit.chain import Link
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import Segment
from stream.audit.packing import Block, Request, packed
from stream.audit.wire import Piece
from stream.batch import Outcome

SCOPE: Final = "stream.audit"
SYSTEM: Final = "aws.kinesis"
"""The semantic conventions know no value for Kinesis; this follows their ``aws.sns``."""

AT_ONCE: Final = 65_536
"""Records whose fields are encoded together: enough to make the cost of each call small; a record's fields take about 150 bytes."""

_INTERNAL, _CLIENT, _CONSUMER = 1, 3, 5
_ERROR: Final = 2
_INFO, _WARN = 9, 13
_SAMPLED: Final = 1
_BAD: Final = {Outcome.DEAD_LETTERED.label, Outcome.EXPIRED_GAP.label}


class Signal(StrEnum):
    """What a record becomes."""

    SPANS = "spans"
    LOGS = "logs"
    BOTH = "both"


class Tier(StrEnum):
    """Which records are sent; the ledger holds all of them whatever is sent."""

    FULL = "full"
    ANOMALIES = "anomalies"
    SAMPLE = "sample"


class Trust(StrEnum):
    """What a producer's trace context does to a record's span: a link, its parent, or nothing."""

    LINK = "link"
    PARENT = "parent"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Shape:
    """How units become requests. ``request_bytes`` bounds a request before compression; ``sample`` keeps one record in that many."""

    signal: Signal = Signal.SPANS
    tier: Tier = Tier.FULL
    trust: Trust = Trust.LINK
    sample: int = 100
    request_bytes: int = 3_670_016


def requests(unit: Link, segment: Segment, urls: Mapping[tuple[str, str], str], shape: Shape) -> Iterator[Request]:
    """The unit's requests in a fixed order, each within ``shape.request_bytes`` unless a single span is larger.

    ``urls`` has the URL of each of the unit's files by sink and key.
    """
    frame = _chosen(segment, unit, shape)
    if shape.signal is not Signal.LOGS:
        spans = chain(_unit_spans(unit, urls), _record_blocks(frame, unit, segment, urls, shape, logs=False))
        yield from packed("/v1/traces", _preamble(unit, urls), spans, shape.request_bytes)
    if shape.signal is not Signal.SPANS:
        blocks = _record_blocks(frame, unit, segment, urls, shape, logs=True)
        yield from packed("/v1/logs", _preamble(unit, urls), blocks, shape.request_bytes)


def gap_requests(gap: Link, shape: Shape) -> Iterator[Request]:
    """A span for a range whose records expired unread, so that a trace store shows the hole too; nothing where only logs are sent."""
    if shape.signal is Signal.LOGS:
        return
    trace, moment = _unit_trace(gap), _nanos(gap.sealed_at)
    told = [wire.attribute(9, "kst.outcome", Outcome.EXPIRED_GAP.label), wire.attribute(9, "error.type", Outcome.EXPIRED_GAP.label)]
    span = _one(trace, ids.unit_span(trace, "unit"), None, f"gap {gap.stream}", _CLIENT, (moment, moment), [*told, _failed()])
    yield from packed("/v1/traces", _preamble(gap, {}), [span], shape.request_bytes)


def _chosen(segment: Segment, unit: Link, shape: Shape) -> pl.DataFrame:
    """The records to send."""
    frame = segment.frame
    anomaly = pl.col("outcome").cast(pl.String) != Outcome.WRITTEN.label
    if shape.tier is Tier.ANOMALIES:
        return frame.filter(anomaly)
    if shape.tier is Tier.SAMPLE:
        _, spans = ids.record_ids(frame, unit.stream, unit.shard, unit.application)
        lot = pl.Series(spans.view("<u8")[:, 0]) % shape.sample == 0
        return frame.filter(anomaly | lot)
    return frame


def _record_blocks(
    frame: pl.DataFrame, unit: Link, segment: Segment, urls: Mapping[tuple[str, str], str], shape: Shape, *, logs: bool
) -> Iterator[Block]:
    targets = range(len(segment.header.targets))
    keys = ["outcome", "stage", "reason", *(f"dest_{index}" for index in targets), "_width", "_produced"]
    message_id = pl.col("seq")
    if frame["sub"].max():
        with_sub = pl.concat_str("seq", pl.lit(":"), pl.col("sub").cast(pl.String))
        message_id = pl.when(pl.col("sub") > 0).then(with_sub).otherwise(message_id)
    produced = pl.col("trace_id").is_not_null() & (shape.trust is not Trust.IGNORE)
    named = frame.with_columns(message_id.alias("_id"), outcome=pl.col("outcome").cast(pl.String), _produced=produced)
    named = named.with_columns(_width=pl.col("_id").str.len_bytes())
    traces, spans = ids.record_ids(frame, unit.stream, unit.shard, unit.application)
    numbers = named.select("_id", "arrival_ms", "bytes", "rows", "trace_id", "parent_id", *(f"row_{index}" for index in targets))
    for first, places in _groups(named, keys):
        for start in range(0, len(places), AT_ONCE):
            at = places[start : start + AT_ONCE]
            rows = numbers if len(at) == numbers.height else numbers[at]
            group = _Group(first, rows, (traces[at], spans[at]), unit, segment, urls, shape)
            yield Block(wire.message(2, group.log() if logs else group.span()), rows.height)


def _groups(frame: pl.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], Any]]:
    """What rows have in common that agree in ``keys``, and where they stand, in an order that is the same every time.

    Few columns differ within a unit as a rule: only those are looked at row by row.
    """
    if frame.is_empty():
        return
    same = frame.select(keys)
    differ = same.select(pl.all().ne_missing(pl.all().first()).any()).row(0)
    varying = [key for key, differs in zip(keys, differ, strict=True) if differs]
    if not varying:
        yield same.row(0, named=True), np.arange(frame.height)
        return
    places = same.select(*varying, _at=pl.int_range(pl.len(), dtype=pl.UInt32)).group_by(varying, maintain_order=True).agg("_at")
    for at in sorted(places["_at"], key=lambda at: repr(same.row(at[0]))):
        yield same.row(at[0], named=True), at.to_numpy()


class _Group:
    """Records that differ in numbers and ids only."""

    def __init__(
        self,
        first: Mapping[str, Any],
        rows: pl.DataFrame,
        own: tuple[Any, Any],
        unit: Link,
        segment: Segment,
        urls: Mapping[tuple[str, str], str],
        shape: Shape,
    ) -> None:
        self.rows = rows
        self.unit = unit
        self.segment = segment
        self.urls = urls
        self.shape = shape
        self.first = first
        self.outcome: str = self.first["outcome"]
        self.produced: bool = self.first["_produced"]
        self.traces, self.spans = own

    def span(self) -> list[Piece]:
        """Pieces of a ``Span``."""
        pieces = [*self._trace(1), *_bytes(2, self.spans)]
        as_parent = self.produced and self.shape.trust is Trust.PARENT
        if as_parent:
            pieces += _bytes(4, _unhex(self.rows["parent_id"]))
        start = self._arrival()
        end = np.maximum(start, np.uint64(_nanos(self.unit.sealed_at)))
        pieces += [wire.text(5, f"process {self.unit.stream}"), wire.number(6, _CONSUMER)]
        pieces += [*wire.fixed64(7, start), *wire.fixed64(8, end), *self._attributes(9)]
        if self.produced:
            link = [*_bytes(1, _unhex(self.rows["trace_id"])), *_bytes(2, _unhex(self.rows["parent_id"]))]
            pieces += wire.message(13, link)
        trace = _unit_trace(self.unit)
        pieces += wire.message(13, [*_bytes(1, trace), *_bytes(2, ids.unit_span(trace, "unit"))])
        if self.outcome in _BAD:
            pieces.append(_failed())
        return [*pieces, wire.fixed32(16, _SAMPLED)]

    def log(self) -> list[Piece]:
        """Pieces of a ``LogRecord``."""
        bad = self.outcome in _BAD
        pieces = [*wire.fixed64(1, _nanos(self.unit.sealed_at)), wire.number(2, _WARN if bad else _INFO)]
        pieces += [wire.text(3, "WARN" if bad else "INFO"), *self._attributes(6), wire.fixed32(8, _SAMPLED), *self._trace(9)]
        pieces += [*_bytes(10, self.spans), *wire.fixed64(11, _nanos(self.unit.sealed_at))]
        return [*pieces, wire.text(12, "kst.record.settled")]

    def _attributes(self, field: int) -> list[Piece]:
        first, rows = self.first, self.rows
        pieces: list[Piece] = [
            wire.attribute(field, "messaging.system", SYSTEM),
            wire.attribute(field, "messaging.operation.name", "process"),
            wire.attribute(field, "messaging.operation.type", "process"),
            *wire.attribute_of_texts(field, "messaging.message.id", ids.characters(rows["_id"])),
            *wire.attribute_of_numbers(field, "messaging.message.body.size", rows["bytes"].to_numpy()),
            wire.attribute(field, "kst.outcome", self.outcome),
        ]
        if first["stage"] is not None:
            pieces.append(wire.attribute(field, "kst.stage", first["stage"]))
        if first["reason"] is not None:
            pieces.append(wire.attribute(field, "kst.reason", first["reason"]))
            if self.outcome in _BAD:
                pieces.append(wire.attribute(field, "error.type", first["reason"].partition(":")[0]))
        if rows["rows"].max() != 0:
            pieces += wire.attribute_of_numbers(field, "kst.dest.rows", rows["rows"].to_numpy())
        return pieces + self._destinations(field)

    def _destinations(self, field: int) -> list[Piece]:
        pieces: list[Piece] = []
        places = 0
        for index in range(len(self.segment.header.targets)):
            place = self.first[f"dest_{index}"]
            if place is None:
                continue
            places += 1
            item = self.segment.header.objects[place]
            name = "kst.dest" if places == 1 else f"kst.dest.{places}"
            pieces.append(wire.attribute(field, f"{name}.uri", self.urls.get((item.sink, item.key), item.key)))
            pieces += wire.attribute_of_numbers(field, f"{name}.row", self.rows[f"row_{index}"].to_numpy())
        return pieces

    def _trace(self, field: int) -> list[Piece]:
        if self.produced and self.shape.trust is Trust.PARENT:
            return _bytes(field, _unhex(self.rows["trace_id"]))
        return _bytes(field, self.traces)

    def _arrival(self) -> Any:
        return self.rows["arrival_ms"].to_numpy().astype(np.uint64) * np.uint64(1_000_000)


def _unit_spans(unit: Link, urls: Mapping[tuple[str, str], str]) -> Iterator[Block]:
    """The unit itself, its stages, its writes, and the settlement of its range; times of writes are those of intent and seal."""
    trace = _unit_trace(unit)
    root = ids.unit_span(trace, "unit")
    created, sealed = _nanos(unit.created_at), max(_nanos(unit.sealed_at), _nanos(unit.created_at))
    begun = created - sum(stage.micros for stage in unit.stages) * 1000
    counts = [wire.attribute(9, f"kst.unit.{label}", count) for label, count in sorted(unit.outcomes.items())]
    bounds = [wire.attribute(9, "kst.unit.trigger", unit.trigger), wire.attribute(9, "messaging.batch.message_count", unit.records)]
    yield _one(trace, root, None, f"poll {unit.stream}", _CLIENT, (begun, sealed), [*_operation("poll", "receive"), *bounds, *counts])
    at = begun
    for ordinal, stage in enumerate(unit.stages):
        end = at + stage.micros * 1000
        attributes = [wire.attribute(9, "kst.stage", stage.name), wire.attribute(9, "kst.stage.rows_in", stage.rows_in)]
        attributes.append(wire.attribute(9, "kst.stage.rows_out", stage.rows_out))
        own = ids.unit_span(trace, "stage", ordinal)
        yield _one(trace, own, root, f"transform {stage.name}", _INTERNAL, (at, end), attributes)
        at = end
    for ordinal, file in enumerate(unit.files):
        attributes = [wire.attribute(9, "kst.sink", file.sink), wire.attribute(9, "kst.dest.rows", file.rows)]
        attributes += [wire.attribute(9, "kst.dest.bytes", file.size), wire.attribute(9, "kst.dest.sha256", file.sha256)]
        attributes.append(wire.attribute(9, "kst.dest.uri", urls.get((file.sink, file.key), file.key)))
        yield _one(trace, ids.unit_span(trace, "write", ordinal), root, f"write {file.sink}", _CLIENT, (created, sealed), attributes)
    settled = [*_operation("checkpoint", "settle"), wire.attribute(9, "kst.unit.last", str(unit.last))]
    own = ids.unit_span(trace, "checkpoint")
    yield _one(trace, own, root, f"checkpoint {unit.stream}", _CLIENT, (sealed, sealed), settled)


def _one(trace: bytes, own: bytes, parent: bytes | None, name: str, kind: int, times: tuple[int, int], attributes: list[bytes]) -> Block:
    pieces = [*_bytes(1, trace), *_bytes(2, own), *(_bytes(4, parent) if parent else []), wire.text(5, name), wire.number(6, kind)]
    pieces += [*wire.fixed64(7, times[0]), *wire.fixed64(8, times[1]), *attributes, wire.fixed32(16, _SAMPLED)]
    return Block(wire.message(2, pieces), 1)


def _failed() -> bytes:
    """``Span.status`` of what went wrong."""
    return b"".join(wire.message(15, [wire.number(3, _ERROR)]))


def _operation(name: str, kind: str) -> list[bytes]:
    names = (("messaging.system", SYSTEM), ("messaging.operation.name", name), ("messaging.operation.type", kind))
    return [wire.attribute(9, key, value) for key, value in names]


def _preamble(unit: Link, urls: Mapping[tuple[str, str], str]) -> tuple[bytes, bytes]:
    """The resource, and the scope with what all spans of the unit have in common."""
    ledger = next((urls.get((file.sink, file.key), file.key) for file in unit.files if file.sink == LEDGER), "")
    resource = [wire.attribute(1, "service.name", unit.application), wire.attribute(1, "service.namespace", "stream")]
    shared: dict[str, str | int] = {
        "messaging.system": SYSTEM,
        "messaging.destination.name": unit.stream,
        "messaging.destination.partition.id": unit.shard,
        "messaging.consumer.group.name": unit.application,
        "kst.pipeline.name": unit.application,
        "kst.pipeline.version": unit.pipeline,
        "kst.unit.after_seq": str(unit.after),
        "kst.unit.last_seq": str(unit.last),
        "kst.unit.records": unit.records,
        "kst.ledger.uri": ledger,
        "messaging.client.id": unit.worker,
    }
    scope = [wire.text(1, SCOPE), *(wire.attribute(3, key, value) for key, value in shared.items())]
    return b"".join(wire.message(1, resource)), b"".join(wire.message(1, scope))


def _bytes(field: int, value: Any) -> list[Piece]:
    return wire.message(field, [value])


def _unhex(texts: pl.Series) -> Any:
    return np.frombuffer(bytes.fromhex("".join(texts.to_list())), np.uint8).reshape(texts.len(), -1)


def _unit_trace(unit: Link) -> bytes:
    return ids.unit_trace(unit.application, unit.stream, unit.shard, unit.after, unit.last)


def _nanos(text: str) -> int:
    """Nanoseconds since 1970; float arithmetic would lose microseconds."""
    moment = datetime.fromisoformat(text)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
