"""OTLP requests for one sealed unit: a span (or log record) for each record, and spans for the operations on the unit.

Everything is computed from the manifest and the ledger segment, so exporting a unit again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

import polars as pl

from stream.audit import ids, wire
from stream.audit.chain import Link
from stream.audit.export_options import Shape, Signal, Tier
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import Segment
from stream.audit.packing import Block, Request, packed
from stream.audit.records import SAMPLED, SYSTEM, failed, nanos, nested, record_blocks, unit_trace
from stream.batch import Outcome

SCOPE: Final = "stream.audit"

_INTERNAL, _CLIENT = 1, 3


def requests(unit: Link, segment: Segment, urls: Mapping[tuple[str, str], str], shape: Shape) -> Iterator[Request]:
    """The unit's requests in a fixed order, each within ``shape.request_bytes`` unless a single span is larger.

    ``urls`` has the URL of each of the unit's files by sink and key.
    """
    frame = _chosen(segment, unit, shape)
    if shape.signal is not Signal.LOGS:
        spans = chain(_unit_spans(unit, urls), record_blocks(frame, unit, segment, urls, shape, logs=False))
        yield from packed("/v1/traces", _preamble(unit, urls), spans, shape.request_bytes)
    if shape.signal is not Signal.SPANS:
        blocks = record_blocks(frame, unit, segment, urls, shape, logs=True)
        yield from packed("/v1/logs", _preamble(unit, urls), blocks, shape.request_bytes)


def gap_requests(gap: Link, shape: Shape) -> Iterator[Request]:
    """A span for a range whose records expired unread, so that a trace store shows the gap; no request if only logs are sent."""
    if shape.signal is Signal.LOGS:
        return
    trace, moment = unit_trace(gap), nanos(gap.sealed_at)
    label = Outcome.EXPIRED_GAP.label
    attributes = [wire.attribute(9, "kst.outcome", label), wire.attribute(9, "error.type", label)]
    span = _span(trace, ids.unit_span(trace, "unit"), None, f"gap {gap.stream}", _CLIENT, (moment, moment), [*attributes, failed()])
    yield from packed("/v1/traces", _preamble(gap, {}), [span], shape.request_bytes)


def _chosen(segment: Segment, unit: Link, shape: Shape) -> pl.DataFrame:
    """The records to send: the segment's ``rows`` itself for all of them, or a part of its ``frame``."""
    if shape.tier is Tier.FULL:
        return segment.rows
    frame = segment.frame
    anomaly = pl.col("outcome").cast(pl.String) != Outcome.WRITTEN.label
    if shape.tier is Tier.ANOMALIES:
        return frame.filter(anomaly)
    if shape.tier is Tier.SAMPLE:
        _, spans = ids.record_ids(frame, unit.stream, unit.shard, unit.application)
        sampled = pl.Series(spans.view("<u8")[:, 0]) % shape.sample == 0
        return frame.filter(anomaly | sampled)
    return frame


def _unit_spans(unit: Link, urls: Mapping[tuple[str, str], str]) -> Iterator[Block]:
    """Spans for the unit, its stages, its writes, and its checkpoint. The times of writes are those of intent and seal."""
    trace = unit_trace(unit)
    root = ids.unit_span(trace, "unit")
    created, sealed = nanos(unit.created_at), max(nanos(unit.sealed_at), nanos(unit.created_at))
    begun = created - sum(stage.micros for stage in unit.stages) * 1000
    counts = [wire.attribute(9, f"kst.unit.{label}", count) for label, count in sorted(unit.outcomes.items())]
    bounds = [wire.attribute(9, "kst.unit.trigger", unit.trigger), wire.attribute(9, "messaging.batch.message_count", unit.records)]
    yield _span(trace, root, None, f"poll {unit.stream}", _CLIENT, (begun, sealed), [*_operation("poll", "receive"), *bounds, *counts])
    start = begun
    for ordinal, stage in enumerate(unit.stages):
        end = start + stage.micros * 1000
        attributes = [wire.attribute(9, "kst.stage", stage.name), wire.attribute(9, "kst.stage.rows_in", stage.rows_in)]
        attributes.append(wire.attribute(9, "kst.stage.rows_out", stage.rows_out))
        span_id = ids.unit_span(trace, "stage", ordinal)
        yield _span(trace, span_id, root, f"transform {stage.name}", _INTERNAL, (start, end), attributes)
        start = end
    for ordinal, file in enumerate(unit.files):
        attributes = [wire.attribute(9, "kst.sink", file.sink), wire.attribute(9, "kst.dest.rows", file.rows)]
        attributes += [wire.attribute(9, "kst.dest.bytes", file.size), wire.attribute(9, "kst.dest.sha256", file.sha256)]
        attributes.append(wire.attribute(9, "kst.dest.uri", urls.get((file.sink, file.key), file.key)))
        yield _span(trace, ids.unit_span(trace, "write", ordinal), root, f"write {file.sink}", _CLIENT, (created, sealed), attributes)
    checkpoint = [*_operation("checkpoint", "settle"), wire.attribute(9, "kst.unit.last", str(unit.last))]
    span_id = ids.unit_span(trace, "checkpoint")
    yield _span(trace, span_id, root, f"checkpoint {unit.stream}", _CLIENT, (sealed, sealed), checkpoint)


def _span(
    trace: bytes, span_id: bytes, parent: bytes | None, name: str, kind: int, times: tuple[int, int], attributes: list[bytes]
) -> Block:
    pieces = [*nested(1, trace), *nested(2, span_id), *(nested(4, parent) if parent else []), wire.text(5, name), wire.number(6, kind)]
    pieces += [*wire.fixed64(7, times[0]), *wire.fixed64(8, times[1]), *attributes, wire.fixed32(16, SAMPLED)]
    return Block(wire.message(2, pieces), 1)


def _operation(name: str, kind: str) -> list[bytes]:
    names = (("messaging.system", SYSTEM), ("messaging.operation.name", name), ("messaging.operation.type", kind))
    return [wire.attribute(9, key, value) for key, value in names]


def _preamble(unit: Link, urls: Mapping[tuple[str, str], str]) -> tuple[bytes, bytes]:
    """The encoded resource, and the scope with the attributes that all spans of the unit share."""
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
