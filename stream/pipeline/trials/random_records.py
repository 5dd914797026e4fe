"""Random records for a schema: mostly valid, some at the limits of their types, some invalid, some damaged."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from stream.transform.decode import DecoderConfig
from stream.transform.decoders.csv import Csv
from stream.transform.decoders.json import Json
from stream.transform.decoders.json_lines import JsonLines
from stream.transform.decompress import Codec
from stream.transform.types import Kind, RecordSchema, Type

_WORDS: Final = ("", "a", "EWR", "united", "ÄÖ€", "😀", "null", "0", "a,b", '"', "line\nbreak", "x" * 300, "%", "/", "..", "2013-01-01")
_BAD_SHARE: Final = 0.1
_NULL_SHARE: Final = 0.15
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}


def random_records(decoder: DecoderConfig, schema: RecordSchema | None, count: int, seed: int) -> list[bytes]:
    """``count`` records for ``decoder``, equal for equal seeds.

    For decoders other than json, json_lines and csv, the records are the decoder's own example and damaged copies of it.
    """
    rng = random.Random(seed)  # noqa: S311 - nothing secret depends on it
    make = _maker(decoder, schema, rng)
    records = []
    for _ in range(count):
        record = make()
        records.append(_damaged(record, rng) if rng.random() < _BAD_SHARE else record)
    return records


def _maker(decoder: DecoderConfig, schema: RecordSchema | None, rng: random.Random) -> Callable[[], bytes]:
    packed = decoder.compression is not None and decoder.compression.codec is Codec.GZIP
    make: Callable[[], bytes]
    if schema is not None and isinstance(decoder, JsonLines):
        make = lambda: b"\n".join(_json(schema, rng) for _ in range(rng.randint(1, 4)))  # noqa: E731
    elif schema is not None and isinstance(decoder, Json):
        make = lambda: _json(schema, rng)  # noqa: E731
    elif schema is not None and isinstance(decoder, Csv):
        make = lambda: _csv(decoder, schema, rng)  # noqa: E731
    else:
        examples = [row["_data"] for row in decoder.example.given]
        make = lambda: _bytes(rng.choice(examples))  # noqa: E731
    return (lambda: gzip.compress(make(), mtime=0)) if packed else make


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _damaged(record: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(record))
    return rng.choice((record[:at], record[:at] + rng.randbytes(2) + record[at:], record + record, b"", record[:at] + record[at + 1 :]))


def _json(schema: RecordSchema, rng: random.Random) -> bytes:
    members: dict[str, Any] = {}
    for name, kind in schema:
        if kind.nullable and rng.random() < _NULL_SHARE:
            if rng.random() < 0.5:
                members[name] = None
            continue
        members[name] = rng.choice((None, "x", -1, 1.5, [], {}, True)) if rng.random() < 0.02 else random_value(kind, rng)
    return json.dumps(members, ensure_ascii=False).encode()


def _csv(decoder: Csv, schema: RecordSchema, rng: random.Random) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=decoder.delimiter, quotechar=decoder.quote or '"', lineterminator="\n")
    if decoder.header:
        writer.writerow(name for name, _ in schema)
    for _ in range(rng.randint(1, 3)):
        values = [None if kind.nullable and rng.random() < _NULL_SHARE else random_value(kind, rng) for _, kind in schema]
        writer.writerow("" if value is None else str(value).lower() if isinstance(value, bool) else value for value in values)
    return out.getvalue().encode()


def random_value(kind: Type, rng: random.Random) -> Any:
    """A random value of ``kind`` as written in JSON."""
    if kind.kind is Kind.LIST and kind.item is not None:
        return [_or_null(kind.item, rng) for _ in range(rng.randint(0, 3))]
    if kind.kind is Kind.OBJECT:
        return {name: _or_null(inner, rng) for name, inner in kind.fields}
    if kind.kind is Kind.PLAIN:
        return _plain(kind.text.rstrip("?"), rng)
    return _MAKERS[kind.kind](kind, rng)


def _or_null(kind: Type, rng: random.Random) -> Any:
    return None if kind.nullable and rng.random() < _NULL_SHARE else random_value(kind, rng)


def _plain(name: str, rng: random.Random) -> Any:
    if name in _WHOLE:
        low, high = _WHOLE[name]
        return rng.choice((low, high, 0, 1, rng.randint(max(low, -1000), min(high, 1000))))
    if name == "float64":
        return rng.choice((0.0, -0.0, 1e-300, -1.7e308, 0.1, rng.uniform(-1000, 1000)))
    return rng.random() < 0.5 if name == "bool" else rng.choice(_WORDS)


def _timestamp(_: Type, rng: random.Random) -> str:
    return (_EPOCH + timedelta(microseconds=rng.randint(-(10**16), 4 * 10**15))).isoformat().replace("+00:00", "Z")


def _decimal(kind: Type, rng: random.Random) -> str:
    scale = kind.wire.scale
    digits = rng.randint(0, 10**kind.wire.precision - 1)
    return f"{digits // 10**scale}.{digits % 10**scale:0{scale}d}" if scale else str(digits)


_MAKERS: Final[Mapping[Kind, Callable[[Type, random.Random], Any]]] = {
    Kind.TIMESTAMP: _timestamp,
    Kind.EPOCH: lambda kind, rng: rng.randint(-(10**15), 4 * 10**15) // kind.unit,
    Kind.DATE: lambda _, rng: (_EPOCH + timedelta(days=rng.randint(-700_000, 2_900_000))).date().isoformat(),
    Kind.BINARY: lambda _, rng: base64.b64encode(rng.randbytes(rng.randint(0, 8))).decode(),
    Kind.FLOAT32: lambda _, rng: rng.choice((0.0, -1.5, 3.4e38, rng.random())),
    Kind.DECIMAL: _decimal,
    Kind.JSON: lambda _, rng: rng.choice((1, "x", [1, {"a": None}], {"b": []}, True)),
}
