"""The compiled reader changes speed and nothing else: ``make native`` builds it, installs it and runs these tests."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream.local.flights import BROKEN, flights_table
from stream.transform.decoders import native
from stream.transform.decoders.native import native_reader
from stream.transform.decoders.rows import Reader
from stream.transform.types import parse_schema

SCHEMA = parse_schema({"text": "string?", "whole": "int64?", "real": "float64?", "flag": "bool?", "day": "date?", "größe": "int64?"})
QUICK, SURE = Reader(SCHEMA, strict=False), Reader(SCHEMA, strict=False, native=False)

names = st.sampled_from(["text", "whole", "real", "flag", "day", "größe", "other", "tex", "a\\u0062c", "text\\u0000"])
texts = st.one_of(st.text(max_size=20), st.sampled_from(["", "x" * 12, "x" * 13, "ä" * 9, '"', "\\", "\n", "\u2028", "2026-11-22"]))
numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "0", "00", "1.", ".5", "1e5", "9223372036854775807", "-9223372036854775808", "123456789012345678"]),
)
values = st.recursive(
    st.one_of(
        texts.map(json.dumps),
        texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
        numbers,
        st.sampled_from(["true", "false", "null", "nul", "NaN", "Infinity", '"\\ud800"', '"\\u00e4"', '"\\x"', "{}", "[]", "[1,]"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(names, inner), max_size=3).map(lambda items: "{" + ", ".join(f'"{n}": {v}' for n, v in items) + "}"),
    ),
    max_leaves=6,
)
blanks = st.sampled_from(["", "", "", " ", "  ", "\n", "\t"])


@st.composite
def records(draw: st.DrawFn) -> bytes:
    members = [f'{draw(blanks)}"{name}"{draw(blanks)}:{draw(blanks)}{draw(values)}' for name in draw(st.lists(names, max_size=6))]
    whole = ("{" + ",".join(members) + draw(blanks) + "}" + draw(blanks)).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)):
        return whole
    at, kind = draw(st.integers(0, len(whole))), draw(st.integers(0, 3))
    byte = bytes([draw(st.integers(0, 255))])
    return (whole[:at], whole[:at] + byte + whole[at:], whole[:at] + whole[at + 1 :], whole[:at] + byte + whole[at + 1 :])[kind]


def array(payloads: list[bytes]) -> pa.LargeBinaryArray:
    return pa.array(payloads, pa.large_binary())


@settings(max_examples=400, deadline=None)
@given(st.lists(records(), max_size=8))
@example([b'{"text":"a"}', b"", b'{"text":"b"}'])
@example([b'{"text":"a","text":"b"}', b'{"whole":-0}', b'{"real":1e400}', b'{"other":1e400}', b'{"other":-1e-400}'])
@example([b'{"text":"\xc3"}', b'{"other":"\xed\xa0\x80"}', b'{"text":"' + b"x" * 7 + b'\xf0\x9f\x98\x80"}', b'{"text":"\x7f"}'])
@example([b'{"whole":12345678901234567890}', b'{"real":0.1}', b'{"real":9007199254740993}', b'{"real":123456789.123456789e-5}'])
def test_columns_and_reasons_are_those_of_the_other_reader(payloads: list[bytes]) -> None:
    quick, sure = QUICK.read(array(payloads)), SURE.read(array(payloads))

    assert quick.rejects == sure.rejects
    assert_frame_equal(quick.frame, sure.frame)
    assert quick.frame.schema == sure.frame.schema


def test_plain_records_do_not_need_the_other_reader() -> None:
    flights = flights_table().head(5000)
    schema = parse_schema({name: "string?" if dtype == pl.String else "int64?" for name, dtype in flights.schema.items() if name != "time_hour"})
    reader = native_reader(schema, strict=False)
    assert reader is not None

    done = reader.read(array(flights.write_ndjson().encode().splitlines()))

    assert done is not None
    assert not done[1].any()
    assert_frame_equal(done[0], flights.drop("time_hour"), check_dtypes=False)


def test_slices_and_nothing_at_all() -> None:
    whole = array([b'{"whole":%d}' % number for number in range(10)])

    assert QUICK.read(whole[3:6]).frame["whole"].to_list() == [3, 4, 5]
    assert QUICK.read(whole[:0]).frame.schema == SURE.read(whole[:0]).frame.schema


def test_many_broken_records_among_good_ones() -> None:
    payloads = [BROKEN[number % 6] if number % 3 else b'{"text":"%d"}' % number for number in range(3000)]

    quick, sure = QUICK.read(array(payloads)), SURE.read(array(payloads))

    assert quick.rejects == sure.rejects
    assert_frame_equal(quick.frame, sure.frame)


@pytest.mark.parametrize("kind", ["json", "list<int64>", "object{a: int64}", "decimal(4,2)", "int8"])
def test_columns_of_other_types_are_left_to_the_other_reader(kind: str) -> None:
    assert native_reader(parse_schema({"a": kind}), strict=False) is None


def test_the_installed_library_is_the_one_in_this_tree() -> None:
    assert native.installed()
    source = Path(__file__).parents[1] / "stream_native" / "__init__.py"
    assert f"INTERFACE = {native.INTERFACE}" in source.read_text()
