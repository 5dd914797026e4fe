"""Rows of Parquet, Arrow and Avro objects: no value changes, positions are stable, and no content harms the worker."""

import base64
import gc
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import zlib
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path

import fastavro
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import avro_file
from stream.errors import Retryable
from stream.source import reader_process, typed_rows
from stream.source.object_formats import Layout, ObjectFormat, Unreadable, chunks
from tests.mutants import damaged

PARQUET, ARROW, AVRO = (Layout(kind) for kind in (ObjectFormat.PARQUET, ObjectFormat.ARROW, ObjectFormat.AVRO))
ROOT = Path(__file__).parents[3]
NAN = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read(body, layout, behind=0, size=64):
    return [record for chunk in chunks(layout, io.BytesIO(body), "x", behind, size) for record in chunk]


def until_damage(body, layout, behind=0):
    """The records before the place where damage shows, and what is said of it; None if there is none."""
    found = []
    try:
        for chunk in chunks(layout, io.BytesIO(body), "x", behind, 2**16):
            found += chunk
    except Unreadable as error:
        return found, str(error)
    return found, None


def as_parquet(table, **options):
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def as_arrow(table, rows=None, codec=None, new=pa.ipc.new_file):
    out = io.BytesIO()
    with new(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def as_stream(table, rows=None, codec=None):
    return as_arrow(table, rows, codec, pa.ipc.new_stream)


def as_avro(rows, schema, codec="null", interval=16_000):
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(schema), rows, codec=codec, sync_interval=interval)
    return out.getvalue()


def decimals(digits, scale):
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda value: Decimal(f"{value}E-{scale}"))


SECONDS = st.integers(-(2**40), 2**40).map(lambda ms: timedelta(milliseconds=ms))
COLUMNS = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1), lambda value: value),
    "natural": (pa.uint64(), st.integers(0, 2**64 - 1), lambda value: value),
    "real": (pa.float64(), st.floats(), lambda value: next((name for name, other in NAN.items() if repr(value) == repr(other)), value)),
    "short": (
        pa.float32(),
        st.floats(width=32),
        lambda value: next((name for name, other in NAN.items() if repr(value) == repr(other)), float(str(np.float32(value)))),
    ),
    "flag": (pa.bool_(), st.booleans(), lambda value: value),
    "text": (pa.string(), st.text(), lambda value: value),
    "octets": (pa.binary(), st.binary(), lambda value: base64.b64encode(value).decode()),
    "fixed": (pa.binary(3), st.binary(min_size=3, max_size=3), lambda value: base64.b64encode(value).decode()),
    "money": (pa.decimal128(38, 9), decimals(38, 9), lambda value: f"{value:f}"),
    "wide": (pa.decimal256(76, 20), decimals(60, 20), lambda value: f"{value:f}"),
    "moment": (
        pa.timestamp("us", "Europe/Berlin"),
        st.datetimes(timezones=st.just(UTC)),
        lambda value: value.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27),
    ),
    "local": (pa.timestamp("ms"), st.datetimes().map(lambda value: value.replace(microsecond=value.microsecond // 1000 * 1000)),
              lambda value: (value.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]).zfill(23)),
    "day": (pa.date32(), st.dates(), lambda value: value.isoformat()),
    "hour": (pa.time64("us"), st.times(), lambda value: value.strftime("%H:%M:%S.%f")),
    "long": (pa.duration("ms"), SECONDS, lambda value: value // timedelta(milliseconds=1)),
}  # fmt: skip


def nested(kind, values, shown):
    """Lists, objects and maps of a column's values."""
    several = st.lists(st.none() | values, max_size=3)
    return {
        "list": (pa.list_(kind), several, lambda value: [each if each is None else shown(each) for each in value]),
        "object": (
            pa.struct({"a": kind, "b": pa.int8()}),
            st.fixed_dictionaries({"a": st.none() | values, "b": st.just(1)}),
            lambda value: {"a": None if value["a"] is None else shown(value["a"]), "b": 1},
        ),
        "map": (
            pa.map_(pa.string(), kind),
            st.dictionaries(st.text(max_size=3), values, max_size=3).map(lambda value: list(value.items())),
            lambda value: [{"key": key, "value": shown(each)} for key, each in value],
        ),
        "lists": (pa.large_list(pa.list_(kind, 2)), st.lists(st.lists(values, min_size=2, max_size=2), max_size=2),
                  lambda value: [[shown(each) for each in inner] for inner in value]),
    }  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_value_of_every_type_is_kept(name, data):
    kind, values, shown = COLUMNS[name]
    shapes = {"plain": (kind, values, shown), **nested(kind, values, shown)}
    if name == "long":
        shapes = {"plain": shapes["plain"]}  # Parquet has no durations, and pyarrow keeps them at the top level only
    rows = data.draw(st.lists(st.fixed_dictionaries({shape: st.none() | each for shape, (_, each, _) in shapes.items()}), max_size=8))
    table = pa.Table.from_pylist(rows, pa.schema([(shape, each) for shape, (each, _, _) in shapes.items()]))
    wanted = [{shape: None if row[shape] is None else show(row[shape]) for shape, (_, _, show) in shapes.items()} for row in rows]
    written = {
        PARQUET: as_parquet(table, row_group_size=3, use_dictionary=len(rows) % 2 == 0, store_decimal_as_integer=True),
        ARROW: as_arrow(table, 3, "zstd" if len(rows) % 2 else None),
    }
    for layout, body in [*written.items(), (ARROW, as_stream(table, 3, "lz4"))]:
        found = read(body, layout)
        assert [number for number, _ in found] == [*range(1, len(rows) + 1)]
        got = [json.loads(text, parse_float=lambda text: text) for _, text in found]
        assert as_numbers(got) == as_numbers(json.loads(json.dumps(wanted), parse_float=lambda text: text))
        behind = data.draw(st.integers(0, len(rows)))
        assert read(body, layout, behind=behind) == found[behind:]


def as_numbers(value):
    """``value`` with floats, given by their text, as the numbers that they are; -0.0 is not 0.0."""
    if isinstance(value, dict):
        return {name: as_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_numbers(each) for each in value]
    if isinstance(value, str):
        try:
            return repr(float(value)) if "_" not in value else value
        except ValueError:
            return value
    return value


AVRO_TYPES = {
    "whole": ("long", st.integers(-(2**63), 2**63 - 1), lambda value: value),
    "real": ("double", st.floats(), lambda value: next((name for name, other in NAN.items() if repr(value) == repr(other)), value)),
    "text": ("string", st.text(), lambda value: value),
    "octets": ("bytes", st.binary(), lambda value: base64.b64encode(value).decode()),
    "money": ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
              decimals(38, 9), lambda value: f"{value:f}"),
    "moment": ({"type": "long", "logicalType": "timestamp-micros"}, st.datetimes(timezones=st.just(UTC)),
               lambda value: value.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)),
    "day": ({"type": "int", "logicalType": "date"}, st.dates(), lambda value: value.isoformat()),
    "hour": ({"type": "long", "logicalType": "time-micros"}, st.times(), lambda value: value.strftime("%H:%M:%S.%f")),
    "list": ({"type": "array", "items": ["null", "int"]}, st.lists(st.none() | st.integers(-5, 5), max_size=3), lambda value: value),
    "map": ({"type": "map", "values": "boolean"}, st.dictionaries(st.text(max_size=3), st.booleans(), max_size=3), lambda value: value),
    "object": ({"type": "record", "name": "inner", "fields": [{"name": "a", "type": "bytes"}]}, st.fixed_dictionaries({"a": st.binary()}),
               lambda value: {"a": base64.b64encode(value["a"]).decode()}),
    "kind": ({"type": "enum", "name": "kinds", "symbols": ["A", "B"]}, st.sampled_from("AB"), lambda value: value),
}  # fmt: skip
SCHEMA = {"type": "record", "name": "row", "fields": [{"name": name, "type": ["null", kind]} for name, (kind, _, _) in AVRO_TYPES.items()]}


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_value_of_avro_is_kept_with_every_codec(codec, data):
    rows = data.draw(st.lists(st.fixed_dictionaries({name: st.none() | values for name, (_, values, _) in AVRO_TYPES.items()}), max_size=8))
    wanted = [{name: None if row[name] is None else show(row[name]) for name, (_, _, show) in AVRO_TYPES.items()} for row in rows]
    if codec == "snappy" and not snappy():
        parts = avro_file.read(as_avro(rows, SCHEMA, interval=50))
        body = avro_file.written(parts.schema, "snappy", None, parts.blocks)
    elif codec == "zstandard":
        parts = avro_file.read(as_avro(rows, SCHEMA, interval=50))
        body = avro_file.written(parts.schema, "zstandard", None, parts.blocks)
    else:
        body = as_avro(rows, SCHEMA, codec, interval=50)
    found = read(body, AVRO)
    assert [number for number, _ in found] == [*range(1, len(rows) + 1)]
    assert as_numbers([json.loads(text, parse_float=str) for _, text in found]) == as_numbers(
        json.loads(json.dumps(wanted), parse_float=str)
    )
    behind = data.draw(st.integers(0, len(rows)))
    assert read(body, AVRO, behind=behind) == found[behind:]


def snappy():
    try:
        import cramjam  # noqa: F401
    except ImportError:
        return False
    return True


def test_values_beyond_what_a_type_here_holds_stay_what_they_are():
    late, nanos = 10**18, 1_700_000_000_123_456_789
    table = pa.table(
        {"ms": pa.array([late, 0], pa.int64()).cast(pa.timestamp("ms")), "ns": pa.array([nanos, None]).cast(pa.timestamp("ns", "UTC"))}
    )
    for body, layout in ((as_parquet(table, coerce_timestamps=None), PARQUET), (as_stream(table), ARROW)):
        assert [json.loads(text) for _, text in read(body, layout)] == [
            {"ms": str(late), "ns": "2023-11-14T22:13:20.123456789Z"},
            {"ms": "1970-01-01T00:00:00.000", "ns": None},
        ]
    fields = [
        {"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ns", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
        {"name": "few", "type": {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}},
    ]
    datum = b"".join((zigzag(late), zigzag(nanos), zigzag(4), (-123_456_789).to_bytes(4, "big", signed=True)))
    body = avro_file.written({"type": "record", "name": "r", "fields": fields}, "null", None, [avro_file.Block(1, datum)])
    assert [json.loads(text) for _, text in read(body, AVRO)] == [
        {"ms": late, "ns": "2023-11-14T22:13:20.123456789Z", "few": "-12345678.9"}
    ]


def zigzag(value):
    left, made = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        made.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*made, left])


def test_types_that_are_others_inside_and_types_without_a_form():
    dictionary = pa.array(["a", None, "b"]).dictionary_encode()
    table = pa.table(
        {
            "d": dictionary,
            "v": pa.array(["x", None, "y"], pa.string_view()),
            "h": pa.array([1.5, None, math.nan], pa.float16()),
            "n": pa.nulls(3),
        }
    )
    assert [json.loads(text) for _, text in read(as_stream(table), ARROW)] == [
        {"d": "a", "v": "x", "h": 1.5, "n": None},
        {"d": None, "v": None, "h": None, "n": None},
        {"d": "b", "v": "y", "h": "NaN", "n": None},
    ]
    with pytest.raises(Unreadable, match="column 'i' is of the type month_day_nano_interval, which has no form in JSON"):
        read(as_stream(pa.table({"i": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})), ARROW)
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    for body, layout in ((as_stream(twice), ARROW), (as_parquet(twice), PARQUET)):
        with pytest.raises(Unreadable, match="there are two columns 'a'"):
            read(body, layout)


def test_rows_without_columns_are_records_too():
    body = avro_file.written({"type": "record", "name": "r", "fields": []}, "null", None, [avro_file.Block(3, b"")])
    assert read(body, AVRO) == [(1, b"{}"), (2, b"{}"), (3, b"{}")]


@pytest.mark.parametrize("layout", [PARQUET, ARROW, AVRO])
def test_one_column_may_hold_whole_records(layout):
    rows = [{"id": n, "raw": None if n == 2 else f"line\n{n}".encode(), "name": f"n{n}"} for n in range(5)]
    frame = pl.DataFrame(rows, schema={"id": pl.Int64, "raw": pl.Binary, "name": pl.String})
    out = io.BytesIO()
    {PARQUET: frame.write_parquet, ARROW: frame.write_ipc, AVRO: frame.write_avro}[layout](out)
    body = out.getvalue()
    inside = Layout(layout.format, column="raw")
    assert read(body, inside) == [(n + 1, row["raw"] or b"") for n, row in enumerate(rows)]
    assert read(body, Layout(layout.format, column="name"), behind=3) == [(4, b"n3"), (5, b"n4")]
    for column in ("id", "none"):
        with pytest.raises(Unreadable, match=r"see source\.s3\.column"):
            read(body, Layout(layout.format, column=column))


def test_what_no_library_writes_is_refused_with_its_reason():
    plain = as_avro([{"a": 1}], {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]})
    schema = avro_file.read(plain).schema
    empty = {"type": "record", "name": "r", "fields": []}
    cases = [
        (avro_file.written(empty, "null", None, [avro_file.Block(2**40, b"")]), 0, "says that it has 1099511627776 rows in 0 bytes"),
        (avro_file.written(schema, "null", None, [avro_file.Block(2, b"\x02")]), 0, "a row of block 0 cannot be read"),
        (avro_file.written(schema, "null", None, [avro_file.Block(1, b"\x02\x04")]), 0, "1 bytes after its 1 rows"),
        (avro_file.written("int", "null", None, [avro_file.Block(1, b"\x02")]), 0, "its rows are no records"),
        (b"", 0, "does not begin like an Avro container file"),
        (plain[:-1], 0, "it is cut off"),
        (avro_file.written(schema, "lzo", None, [avro_file.Block(1, b"\x02")]), 0, "its codec is lzo"),
    ]
    for body, rows, why in cases:
        found, said = until_damage(body, AVRO)
        assert said is not None, why
        assert why in said
        assert len(found) == rows


GIB = 2**30
BYTES = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "bytes"}]}


def as_if(codec, data):
    """A file whose only block is ``data``, compressed already."""
    plain = avro_file.written(BYTES, "null", None, [avro_file.Block(1, data)])
    return plain.replace(b"\x08null", zigzag(len(codec)) + codec.encode(), 1)


def deflated(size):
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(bytes(size)) + packer.flush()


def one_long_value():
    """A table of one value with a GiB of zeros."""
    offsets = pa.py_buffer(np.array([0, GIB], np.int32))
    return pa.table({"a": pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(np.zeros(GIB, np.uint8))])})


BOMBS = {
    "avro deflate": (AVRO, lambda: as_if("deflate", deflated(GIB)), "has more than 256 MiB"),
    "avro zstandard": (AVRO, lambda: as_if("zstandard", pa.compress(bytes(GIB), "zstd", asbytes=True)), "has more than 256 MiB"),
    "avro snappy": (AVRO, lambda: as_if("snappy", b"\xff\xff\xff\xff\x0f" + bytes(100)), "has more than 256 MiB"),
    "parquet page": (
        PARQUET,
        lambda: as_parquet(one_long_value(), compression="zstd", use_dictionary=False, write_statistics=False),
        "memory",
    ),
    "parquet dictionary": (
        PARQUET,
        lambda: as_parquet(pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0] * 5000), pa.array([bytes(2**20)]))})),
        "memory",
    ),
    "arrow buffer": (ARROW, lambda: as_stream(one_long_value(), codec="zstd"), "memory"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_few_bytes_that_stand_for_gigabytes_are_refused_with_a_reason(name):
    layout, make, why = BOMBS[name]
    body = make()
    assert len(body) < 8 * 2**20
    gc.collect()
    before = peak()
    found, said = until_damage(body, layout)
    assert found == []
    assert said is not None
    assert why in said
    assert peak() - before < 64 * 2**20, "the worker itself took the memory"


def peak():
    """The most memory that this process has held, in bytes."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def sound_objects():
    """Objects to damage, by name: several row groups, blocks or batches each."""
    rows = [
        {"id": n, "s": f"text {n % 7}" * (n % 5), "b": None if n % 3 else bytes([n % 256]) * 3, "l": list(range(n % 4))} for n in range(300)
    ]
    table = pa.Table.from_pylist(rows, pa.schema({"id": pa.int64(), "s": pa.string(), "b": pa.binary(), "l": pa.list_(pa.int32())}))
    words = table.set_column(1, "s", table["s"].combine_chunks().dictionary_encode())
    kinds = {"id": "long", "s": "string", "b": ["null", "bytes"], "l": {"type": "array", "items": "int"}}
    schema = {"type": "record", "name": "row", "fields": [{"name": name, "type": kind} for name, kind in kinds.items()]}
    yield "parquet", PARQUET, as_parquet(table, row_group_size=100, data_page_size=512)
    yield "parquet plain", PARQUET, as_parquet(table, row_group_size=70, use_dictionary=False, compression="none", data_page_version="2.0")
    yield "parquet zstd", PARQUET, as_parquet(table, row_group_size=100, compression="zstd")
    yield "arrow file", ARROW, as_arrow(words, 100)
    yield "arrow stream", ARROW, as_stream(words, 100)
    yield "arrow zstd", ARROW, as_stream(table, 100, "zstd")
    yield "arrow lz4", ARROW, as_arrow(table, 100, "lz4")
    yield "avro", AVRO, as_avro(rows, schema)
    yield "avro deflate", AVRO, as_avro(rows, schema, "deflate", 2000)


SOUND = {name: (layout, body) for name, layout, body in sound_objects()}
MUTANTS = int(os.environ.get("STREAM_MUTANTS", "60"))


@pytest.mark.parametrize("name", SOUND)
def test_damage_gives_rows_then_a_reason_and_the_same_from_any_row(name, tmp_path):
    layout, body = SOUND[name]
    whole, said = until_damage(body, layout)
    assert (len(whole), said) == (300, None)
    (tmp_path / "object").write_bytes(body)
    command = [sys.executable, "-m", "tests.mutants", layout.format, str(tmp_path / "object"), "0", str(MUTANTS)]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == MUTANTS
    # A process that dies is what processes are for: the worker says so of the object. None may take forever.
    assert [each for each in answers if each["code"] == -signal.SIGPROF] == []
    assert [each for each in answers if not each.get("sound", True)] == []
    assert sum(each.get("said") is not None or each["code"] != 0 for each in answers) > MUTANTS // 4
    # The same through the worker's side.
    for each in answers[:2]:
        found, said = until_damage(damaged(body, random.Random(each["seed"])), layout)
        assert [number for number, _ in found] == [*range(1, len(found) + 1)]
        assert (said is None) == (each.get("said") is None and each["code"] == 0)
        if each["code"] == 0:
            assert len(found) == each["rows"]


def test_a_sound_object_is_not_blamed_for_the_one_before():
    layout, body = SOUND["parquet"]
    for other in ("avro", "arrow file"):
        assert until_damage(b"".join((body[:4], body[9:])), layout)[1] is not None
        assert until_damage(SOUND[other][1], SOUND[other][0])[1] is None
    # Even if that has damaged the process, which then ends or says what is not so.
    assert until_damage(body, layout)[1] is None
    broken = reader_process._idle[-1]
    broken.send("no request")
    found, said = until_damage(body, layout)
    assert (len(found), said) == (300, None)
    assert broken.ended


BUSY = """
import stream.source.reader_child as child, stream.source.typed_rows as rows
child.STEP_SECONDS = 0.2
def forever(*_):
    print("nonsense", flush=True)
    while True:
        pass
rows.typed_rows = forever
child.main()
"""


def test_a_step_that_takes_forever_ends_with_its_process():
    child = reader_process._Child(("-c", BUSY))
    with pytest.raises(reader_process.BadContent, match="keeps the reader busy for minutes"):
        list(reader_process._served(child, ("open", "parquet", None, 0, 0, 64), io.BytesIO()))
    assert child.ended


def test_an_object_that_ends_the_process_is_to_blame_for_it():
    child = reader_process._Child(("-c", BUSY.replace("while True:\n        pass", "import os; os.abort()")))
    with pytest.raises(reader_process.BadContent, match=r"it ends the process that reads it \(SIGABRT\)"):
        list(reader_process._served(child, ("open", "parquet", None, 0, 0, 64), io.BytesIO()))


def small_container(limit, works):
    """A program of the reader process in a container of ``limit`` bytes, where ``works`` stands for reading an object."""
    return f"""
import stream.source.reader_child as child, stream.source.typed_rows as rows
child.memory_limit = lambda: {limit}
def reads(*_):
    {works}
rows.typed_rows = reads
child.main()
"""


def outcome(program):
    child = reader_process._Child(("-c", program))
    with pytest.raises((reader_process.BadContent, Retryable)) as raised:
        list(reader_process._served(child, ("open", "parquet", None, 0, 0, 64), io.BytesIO()))
    assert child.ended
    return type(raised.value), str(raised.value)


ABORTS = 'import os; os.write(2, b"memory allocation of 999 bytes failed\\n"); os.abort()'


@pytest.mark.parametrize(
    ("limit", "works", "blamed", "words"),
    [
        (
            2**31,
            "bytearray(300 * 2**20)",
            Retryable,
            "takes more than 256 MiB of memory, an eighth of the container's limit of 2,048 MiB: raise the",
        ),
        (2**29, "bytearray(300 * 2**20)", Retryable, "MiB of memory, the least that is allowed: raise the limit of the container"),
        (2**31, ABORTS, Retryable, "lacks memory: to read a part of it takes more than 256 MiB"),
        (2**31, "import os; os.abort()", reader_process.BadContent, "it ends the process that reads it (SIGABRT)"),
        (2**34, "bytearray(2**31)", reader_process.BadContent, "takes more than 1,024 MiB of memory, which no object may take"),
        (None, "bytearray(2**31)", reader_process.BadContent, "takes more than 1,024 MiB of memory, which no object may take"),
        (None, ABORTS, reader_process.BadContent, "it ends the process that reads it (SIGABRT)"),
    ],
)
def test_an_object_is_not_to_blame_for_a_small_container(limit, works, blamed, words):
    found, said = outcome(small_container(limit, works))
    assert found is blamed
    assert words in said


@pytest.mark.parametrize(
    ("kills", "words"), [(1, "because the container reached its memory limit of 700 MiB"), (0, "was killed: look whether this")]
)
def test_a_process_that_the_kernel_kills_says_so(monkeypatch, kills, words):
    counted = iter([4, 4 + kills])
    monkeypatch.setattr(reader_process, "memory_kills", lambda: next(counted))
    monkeypatch.setattr(reader_process, "memory_limit", lambda: 700 * 2**20)
    found, said = outcome(small_container(700 * 2**20, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert found is Retryable
    assert words in said


def test_a_process_that_ends_at_once_is_quoted():
    with pytest.raises(Retryable, match=r"ended at once, with code 3: .* it said: no pyarrow here"):
        reader_process._Child(("-c", "import sys; print('no pyarrow here', file=sys.stderr); sys.exit(3)"))


def test_what_a_process_says_is_bounded():
    child = reader_process._Child(("-c", small_container(None, "import os; [os.write(2, b'x' * 1000) for _ in range(1000)]")))
    with pytest.raises(reader_process.BadContent, match="File too large"):
        list(reader_process._served(child, ("open", "parquet", None, 0, 0, 64), io.BytesIO()))


def test_the_process_knows_no_secret_of_the_worker(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-worker")
    child = reader_process._Child()
    try:
        assert b"secret-of-the-worker" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        child.end()


def test_checksums_of_parquet_pages_are_compared():
    table = pa.table({"a": pa.array(range(1000))})
    body = bytearray(as_parquet(table, compression="none", use_dictionary=False, write_page_checksum=True))
    at = bytes(body).index((500).to_bytes(8, "little"))
    body[at] ^= 1
    assert until_damage(bytes(body), PARQUET)[1] is not None


def test_a_large_row_group_is_read_piece_by_piece(monkeypatch):
    monkeypatch.setattr(typed_rows, "_BUFFERED", 0)
    monkeypatch.setattr(typed_rows, "_PIECE", 2**16)
    table = pa.table({"a": pa.array(range(200_000)), "b": pa.array([f"text {n}" for n in range(200_000)])})
    body = as_parquet(table, row_group_size=150_000, compression="none", use_dictionary=False)
    asked = []

    class Asked(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    found = [body for _, bodies in typed_rows.typed_rows("parquet", None, Asked(body), 0) for body in bodies]
    assert [json.loads(text) for text in found[::19_999]] == [{"a": n, "b": f"text {n}"} for n in range(0, 200_000, 19_999)]
    assert len(found) == 200_000
    assert max(asked) <= 2**18 < len(body) // 10


@pytest.mark.parametrize("layout", [PARQUET, ARROW, AVRO])
def test_a_killed_reader_is_not_the_fault_of_the_object(layout):
    body = {
        PARQUET: lambda: as_parquet(pa.table({"a": range(10)})),
        ARROW: lambda: as_stream(pa.table({"a": range(10)}), 1),
        AVRO: lambda: as_avro([{"a": n} for n in range(10)], {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}),
    }[layout]()
    found = chunks(layout, io.BytesIO(body), "x", 0, 1)
    assert next(found) == [(1, b'{"a":0}')]
    os.kill(reader(), signal.SIGKILL)
    with pytest.raises(Retryable, match="look whether this machine lacks memory"):
        list(found)
    # The next object gets a process of its own.
    assert len(read(body, layout)) == 10


def readers():
    """The processes that read objects for this one."""
    mine = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == os.getpid() and b"stream.source.reader_child" in command:
            mine.append(int(stat.parent.name))
    return mine


def reader():
    """The process that is reading: the one that is not idle."""
    idle = {child.pid for child in reader_process._idle}
    (busy,) = [pid for pid in readers() if pid not in idle]
    return busy
