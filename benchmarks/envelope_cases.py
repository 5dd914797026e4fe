"""Records with several rows or an envelope, and the loop that a program without this service would have."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from benchmarks.decoder_cases import SCHEMA, Case, flight

LINES, EVENTS = 10, 20


def text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def lines(at: int) -> list[dict[str, Any]]:
    return [flight(at * LINES + line) for line in range(LINES)]


def separated(at: int) -> bytes:
    def line(values: dict[str, Any]) -> str:
        return ",".join(f'"{value}"' if name == "note" else text(value) for name, value in values.items())

    return "\n".join(map(line, lines(at))).encode()


def change(at: int) -> bytes:
    given = {**flight(at), "table": {"schema-name": "air", "table-name": "flights"}}
    meta = {"timestamp": "2013-01-01T06:00:00.123456Z", "record-type": "data", "operation": "insert", "partition-key-type": "schema-table"}
    return json.dumps({"data": given, "metadata": {**meta, **given.pop("table"), "transaction-id": 10**9 + at}}).encode()


def image(at: int) -> dict[str, Any]:
    kinds: dict[type, Callable[[Any], dict[str, Any]]] = {
        str: lambda value: {"S": value}, bool: lambda value: {"BOOL": value}, type(None): lambda _: {"NULL": True},
    }  # fmt: skip
    return {name: kinds.get(type(value), lambda number: {"N": str(number)})(value) for name, value in flight(at).items()}


def item_change(at: int) -> bytes:
    new = image(at)
    body = {
        "ApproximateCreationDateTime": 1_767_225_600_000 + at,
        "Keys": {"flight": new["flight"]},
        "NewImage": new,
        "OldImage": new,
        "SizeBytes": 400,
    }
    head = {"awsRegion": "eu-central-1", "eventID": f"0f3c1a52-7d0d-4b1c-9f0e-{at:012d}", "eventName": "MODIFY", "userIdentity": None}
    return json.dumps(
        {**head, "recordFormat": "application/json", "tableName": "flights", "dynamodb": body, "eventSource": "aws:dynamodb"}
    ).encode()


def logs(at: int) -> bytes:
    def event(number: int) -> dict[str, Any]:
        return {"id": f"{38 * 10**54 + number:056d}", "timestamp": 1_767_225_600_000 + number, "message": json.dumps(flight(number))}

    head = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "/aws/lambda/flights",
        "logStream": "2026/01/01/[$LATEST]0c8f4c7b",
    }
    document = {**head, "subscriptionFilters": ["all"], "logEvents": [event(at * EVENTS + number) for number in range(EVENTS)]}
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 6, mtime=0)


def each(read: Callable[[bytes], Any]) -> Callable[[Sequence[bytes]], Any]:
    return lambda records: [read(record) for record in records]


def envelope_cases() -> list[Case]:
    """Every case, in the order of the table."""
    decode = msgspec.json.Decoder(type=dict[str, Any]).decode

    def events(record: bytes) -> list[dict[str, Any]]:
        return [decode(event["message"]) for event in decode(gzip.decompress(record))["logEvents"]]

    def fields(record: bytes) -> list[list[str]]:
        return list(csv.reader(io.StringIO(record.decode(), newline="")))

    objects = "`json_lines`, 10 lines", "json_lines", {}, SCHEMA, lambda at: b"\n".join(json.dumps(line).encode() for line in lines(at))
    return [
        Case(*objects, "msgspec", each(lambda record: [decode(line) for line in record.split(b"\n")]), LINES),
        Case("`csv`, 10 lines, one field of each quoted", "csv", {}, SCHEMA, separated, "csv", each(fields), LINES),
        Case("`dms`, flat", "dms", {}, SCHEMA, change, "msgspec", each(decode)),
        Case("`dynamodb_stream`, flat, both images", "dynamodb_stream", {}, SCHEMA, item_change, "msgspec", each(decode)),
        Case("`cloudwatch_logs`, 20 events, gzip'd", "cloudwatch_logs", {}, SCHEMA, logs, "gzip and msgspec", each(events), EVENTS),
    ]
