"""Exported requests, decoded by OpenTelemetry's own protobuf classes."""

import asyncio
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stream.audit import wire
from stream.audit.context import DEFAULT_PATHS, extract
from stream.audit.export_options import Shape, Signal, Tier, Trust
from stream.audit.fates import COLUMNS, Fates, distinct_rows
from stream.audit.ids import hex_ids
from stream.audit.ledger import Segment, read_segment
from stream.audit.packing import split
from stream.audit.spans import requests
from tests.sealed import PIPELINE, Sealed, sequence, shard_id, three_units

WHOLE = Shape()
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def payload(n):
    """Every third record has a trace context; all contain text that must never be exported."""
    body = {"n": n, "kind": "ab"[n % 2], "secret": "TAGGED-PAYLOAD"}
    if n % 3 == 0:
        body["traceparent"] = f"00-{TRACE[:-4]}{n:04x}-{PARENT}-01"
    return b"{broken TAGGED-PAYLOAD" if n % 11 == 0 else json.dumps(body).encode()


async def _units(sealed):
    found = []
    for shard in await sealed.evidence().shards():
        for link in (await sealed.evidence().log(shard)).links:
            if link.ledger is not None:
                stored = await sealed.stores.targets["ledger"].get(link.ledger.key)
                urls = {(file.sink, file.key): f"memory:{file.sink}/{file.key}" for file in link.files}
                found.append((link, read_segment(stored.body), urls))
    return found


@pytest.fixture(scope="module")
def units_with_context():
    async def make():
        sealed = await Sealed.open()
        await sealed.unit(0, 1, 100, payload)
        return await _units(sealed)

    return asyncio.run(make())


@pytest.fixture(scope="module")
def units_without_context():
    async def make():
        return await _units(await three_units())

    return asyncio.run(make())


def decoded(units, shape=WHOLE):
    spans = []
    for unit, segment, urls in units:
        for request in requests(unit, segment, urls, shape):
            message = ExportTraceServiceRequest.FromString(bytes(request.body))
            (resource,) = message.resource_spans
            (scope,) = resource.scope_spans
            assert len(scope.spans) == request.items
            spans += scope.spans
    return spans


def attributes(item):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in item.attributes}


def record_spans(spans):
    return [span for span in spans if span.name.startswith("process ")]


def test_each_record_has_one_span_with_its_outcome(units_without_context):
    spans = record_spans(decoded(units_without_context))
    assert len(spans) == 170
    assert len({(span.trace_id, span.span_id) for span in spans}) == 170
    by_id = {attributes(span)["messaging.message.id"]: span for span in spans}
    written = attributes(by_id[str(sequence(0, 44))])
    assert written["kst.outcome"] == "written"
    assert written["kst.dest.uri"].startswith("memory:s3/kind=a/")
    assert written["messaging.message.body.size"] == len(b'{"n": 44, "kind": "a"}')
    dead = by_id[str(sequence(0, 12))]
    assert dead.status.code == 2
    assert attributes(dead)["kst.stage"] == "decode"
    assert attributes(dead)["kst.dest.uri"].startswith("memory:rejects/")
    assert attributes(by_id[str(sequence(0, 45))])["kst.reason"] == "filtered"
    assert by_id[str(sequence(0, 45))].status.code == 0


def test_ids_equal_those_that_trace_prints(units_without_context):
    unit, segment, _ = units_without_context[0]
    known = hex_ids(segment.frame, unit.stream, unit.shard, unit.application)
    spans = record_spans(decoded(units_without_context[:1]))
    assert {attributes(span)["messaging.message.id"]: (span.trace_id.hex(), span.span_id.hex()) for span in spans} == {
        number: found for (number, _), found in known.items()
    }


def test_a_span_lasts_from_arrival_to_seal(units_without_context):
    unit, _, _ = units_without_context[0]
    span = record_spans(decoded(units_without_context[:1]))[0]
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60 * 10**9
    assert unit.sealed_at.startswith("2026-01-01T12:00:01.250")
    assert span.end_time_unix_nano % 10**9 == 250_000_000


def test_every_stage_write_and_checkpoint_has_a_span(units_without_context):
    spans = [span for span in decoded(units_without_context[:1]) if not span.name.startswith("process ")]
    names = [span.name for span in spans]
    assert names[:4] == ["poll events", "transform decode", "transform 1:filter", "transform 2:derive"]
    assert names.count("write s3") == 2
    assert names[-1] == "checkpoint events"
    assert {"write ledger", "write rejects"} <= set(names)
    assert len({span.trace_id for span in spans}) == 1
    assert all(span.parent_span_id == spans[0].span_id for span in spans[1:])
    rows = {span.name: attributes(span) for span in spans}
    assert rows["transform 1:filter"]["kst.stage.rows_in"] > rows["transform 1:filter"]["kst.stage.rows_out"]
    assert record_spans(decoded(units_without_context[:1]))[0].links[0].span_id == spans[0].span_id


def test_exporting_again_gives_the_same_bytes(units_without_context):
    for unit in units_without_context:
        assert list(requests(*unit, Shape())) == list(requests(*unit, Shape()))


@pytest.mark.parametrize("limit", [3000, 10_000, 40_000])
def test_requests_stay_within_their_size_and_lose_nothing(units_without_context, limit):
    made = [request for unit in units_without_context for request in requests(*unit, Shape(request_bytes=limit))]
    assert max(len(request.body) for request in made) <= limit
    small = {span.SerializeToString() for span in decoded(units_without_context, Shape(request_bytes=limit))}
    assert small == {span.SerializeToString() for span in decoded(units_without_context)}


def test_the_halves_of_a_request_hold_all_of_its_spans(units_without_context):
    (request,) = requests(*units_without_context[0], Shape())
    parts = split(request)
    assert [part.items for part in parts] == [request.items // 2, request.items - request.items // 2]
    spans = [
        span for part in parts for span in ExportTraceServiceRequest.FromString(bytes(part.body)).resource_spans[0].scope_spans[0].spans
    ]
    assert spans == list(ExportTraceServiceRequest.FromString(bytes(request.body)).resource_spans[0].scope_spans[0].spans)
    whole = ExportTraceServiceRequest.FromString(bytes(request.body)).resource_spans[0]
    half = ExportTraceServiceRequest.FromString(bytes(parts[1].body)).resource_spans[0]
    assert (half.resource, half.scope_spans[0].scope, half.schema_url) == (whole.resource, whole.scope_spans[0].scope, whole.schema_url)
    single = [request for request in requests(*units_without_context[0], Shape(request_bytes=1)) if request.items == 1]
    assert split(single[0]) == []


@pytest.mark.parametrize("trust", list(Trust))
def test_the_trust_setting_decides_how_a_producers_context_is_used(units_with_context, trust):
    spans = {attributes(span)["messaging.message.id"]: span for span in record_spans(decoded(units_with_context, Shape(trust=trust)))}
    span, own = spans[str(sequence(0, 3))], spans[str(sequence(0, 4))]
    theirs = f"{TRACE[:-4]}{3:04x}"
    assert (span.trace_id.hex() == theirs) == (trust is Trust.PARENT)
    assert (span.parent_span_id.hex() == PARENT) == (trust is Trust.PARENT)
    assert (theirs in {link.trace_id.hex() for link in span.links}) == (trust is not Trust.IGNORE)
    assert len(own.links) == 1
    assert not own.parent_span_id
    assert len({span.span_id for span in spans.values()}) == 100


def test_log_records_carry_the_same_ids_and_outcomes(units_with_context):
    unit, segment, urls = units_with_context[0]
    records = []
    for request in requests(unit, segment, urls, Shape(signal=Signal.LOGS)):
        assert request.path == "/v1/logs"
        records += ExportLogsServiceRequest.FromString(bytes(request.body)).resource_logs[0].scope_logs[0].log_records
    spans = record_spans(decoded(units_with_context))
    assert {(record.trace_id, record.span_id) for record in records} == {(span.trace_id, span.span_id) for span in spans}
    assert {record.event_name for record in records} == {"kst.record.settled"}
    assert {record.severity_text for record in records} == {"INFO", "WARN"}
    assert {attributes(record)["kst.outcome"] for record in records} == {"written", "filtered", "dead_lettered"}


def test_tiers_select_which_records_are_exported(units_without_context):
    anomalies = record_spans(decoded(units_without_context, Shape(tier=Tier.ANOMALIES)))
    assert {attributes(span)["kst.outcome"] for span in anomalies} == {"filtered", "dead_lettered"}
    sampled = record_spans(decoded(units_without_context, Shape(tier=Tier.SAMPLE, sample=4)))
    written = sum(attributes(span)["kst.outcome"] == "written" for span in sampled)
    assert len(sampled) == len(anomalies) + written
    assert 10 < written < 60


@pytest.mark.parametrize("shape", [Shape(signal=Signal.BOTH), Shape(trust=Trust.PARENT)])
def test_no_payload_and_no_partition_key_is_exported(units_with_context, shape):
    bodies = [bytes(request.body) for unit in units_with_context for request in requests(*unit, shape)]
    assert all(str(sequence(0, 3)).encode() in body for body in bodies)
    assert len(bodies) == (2 if shape.signal is Signal.BOTH else 1)
    assert not [body for body in bodies if b"TAGGED" in body or b"key-" in body]


@given(st.lists(st.integers(1, 10**60 - 1), min_size=1, max_size=20, unique=True))
@settings(max_examples=60, deadline=None)
def test_the_ids_of_a_record_do_not_depend_on_other_records(numbers):
    frame = pl.DataFrame({"seq": [str(n) for n in numbers], "sub": [0] * len(numbers)}, schema={"seq": pl.String, "sub": pl.UInt32})
    together = hex_ids(frame, "s", "h", "a")
    for index in range(len(numbers)):
        assert hex_ids(frame[index : index + 1], "s", "h", "a").items() <= together.items()
    assert len(set(together.values())) == len(numbers)
    other = hex_ids(frame, "s", "h", "b")
    assert all(other[key][0] == together[key][0] and other[key][1] != together[key][1] for key in together)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_padded_numbers_are_valid_varints(value):
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

    assert AnyValue.FromString(wire.rows([wire.varint(3 << 3), wire.digits([value])], 1).tobytes()).int_value == value


GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (f'{{"traceparent": "{GOOD}"}}', True),
        (f'{{"metadata": {{"traceparent": "{GOOD}"}}}}', True),
        (f'{{"_datadog": {{"traceparent": "{GOOD}"}}}}', True),
        (f'{{"traceparent": null, "_otel": {{"traceparent": "{GOOD}"}}}}', True),
        (f'{{"traceparent": "cc-{TRACE}-{PARENT}-01-later"}}', True),
        (f'{{"traceparent": "ff-{TRACE}-{PARENT}-01"}}', False),
        (f'{{"traceparent": "00-{TRACE.upper()}-{PARENT}-01"}}', False),
        (f'{{"traceparent": "00-{"0" * 32}-{PARENT}-01"}}', False),
        (f'{{"traceparent": "00-{TRACE}-{"0" * 16}-01"}}', False),
        (f'{{"other": {{"traceparent": "{GOOD}"}}}}', False),
        (f'{{"text": "\\"traceparent\\": \\"{GOOD}\\""}}', False),
        ('{"traceparent": 5}', False),
        ('{"traceparent": ', False),
        (b'\xff"traceparent"', False),
        ("", False),
    ],
)
def test_the_trace_context_of_a_producer_is_found(record, found):
    body = record if isinstance(record, bytes) else record.encode()
    for batch in ([body], [b"{}", body, b'\xfe"traceparent"', b"x"]):
        made = extract(pl.Series(batch, dtype=pl.Binary), DEFAULT_PATHS)
        assert made.row(batch.index(body)) == ((TRACE, PARENT) if found else (None, None))
        assert made["trace_id"].null_count() == len(batch) - found


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (("$.a.b", "$.c"), "1" * 32),
        (("$.c", "$.a.b"), "2" * 32),
        (("$.x", "$.c"), "2" * 32),
        ((), None),
    ],
)
def test_the_first_configured_path_that_leads_to_a_context_counts(paths, found):
    record = json.dumps({"a": {"b": f"00-{'1' * 32}-{PARENT}-00"}, "c": f"00-{'2' * 32}-{PARENT}-01", "x": 7}).encode()
    assert extract(pl.Series([record], dtype=pl.Binary), paths).row(0) == (found, PARENT if found else None)


@given(st.lists(st.sampled_from([b"{}", f'{{"tp": "{GOOD}"}}'.encode(), b'{"tp": 5}']), min_size=1, max_size=5))
def test_payloads_without_the_w3cs_name_are_searched_for_other_names_only(batch):
    payloads = pl.Series(batch, dtype=pl.Binary)
    for paths in ((*DEFAULT_PATHS, "$.tp"), DEFAULT_PATHS):
        assert extract(payloads, paths, traced=False).equals(extract(payloads, paths), null_equal=True)


def test_configured_paths_reach_the_ledger_of_a_running_pipeline():
    async def ledger_of(text):
        sealed = await Sealed.open(text=text)
        await sealed.unit(0, 1, 3, lambda n: json.dumps({"n": n, "kind": "a", "tp": GOOD}).encode())
        ((_, segment, _),) = await _units(sealed)
        return segment.frame["trace_id"].to_list(), sealed.recipe.digest

    units_without_context, usual = asyncio.run(ledger_of(PIPELINE))
    own, other = asyncio.run(ledger_of(PIPELINE + "audit: {trace_context: [$.tp]}\n"))
    default = asyncio.run(ledger_of(PIPELINE + "audit: {}\n"))[1]
    assert (units_without_context, own) == ([None] * 3, [TRACE] * 3)
    assert usual == default != other


def test_shards_do_not_share_ids(units_without_context):
    assert len({unit.shard for unit, _, _ in units_without_context}) == 2
    frame = pl.DataFrame({"seq": ["7"], "sub": [0]}, schema={"seq": pl.String, "sub": pl.UInt32})
    assert hex_ids(frame, "events", shard_id(0), "a") != hex_ids(frame, "events", shard_id(1), "a")


def as_made(segment):
    """``segment`` as it was before its file was written."""
    kinds, codes = distinct_rows([segment.frame[name] for name in COLUMNS])
    fates = Fates(pl.DataFrame(kinds, schema=dict.fromkeys(COLUMNS, pl.String), orient="row"), codes, np.bincount(codes).tolist())
    return Segment(segment.header, segment.frame.drop(COLUMNS), fates)


@pytest.mark.parametrize("tier", Tier)
def test_a_segment_gives_the_same_spans_before_its_file_is_written(units_with_context, units_without_context, tier):
    for link, read, urls in (*units_with_context, *units_without_context):
        made = as_made(read)
        bodies = [[bytes(request.body) for request in requests(link, segment, urls, Shape(tier=tier))] for segment in (made, read)]
        assert bodies[0] == bodies[1] != []
        assert made.frame.equals(read.frame, null_equal=True)
