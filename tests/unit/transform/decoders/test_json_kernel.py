"""The compiled reader changes the speed and nothing else."""

import json
import os
import shutil

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream import native
from stream.local.flights import BROKEN, flights_table
from stream.transform.decode import Unknown
from stream.transform.decoders.json import Json
from stream.transform.decoders.json_kernel import json_reader
from stream.transform.stage import Applied
from stream.transform.types import RecordSchema, Type, parse_schema
from tests.kernel import compared, no_kernel

SCHEMA = parse_schema(
    {
        "text": "string?", "whole": "int64?", "small": "int8?", "positive": "uint64?", "real": "float64?", "half": "float32?",
        "flag": "bool?", "day": "date?", "at": "timestamp?", "tick": "timestamp(ms)?", "body": "binary?", "raw": "json?",
        "größe": "int64?", "money": "decimal(6,2)?", "wide": "decimal(38,10)?", "count": "decimal(19,0)?", "share": "decimal(3,3)?",
        "many": "list<int64?>?", "deep": "list<list<string>>?",
        "one": "object{a: string, b: list<int32>?, c: object{d: bool?}?}?",
        "some": "list<object{a: timestamp?, b: list<object{c: float64}>?}>?",
    }
)  # fmt: skip
NAMED = [name for name, _ in SCHEMA]
INNER = ["a", "b", "c", "d"]

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "x" * 12, "x" * 13, "ä" * 9, '"', "\\", "\n", "\u2028", "😀" * 4, "Zm9v", "Zm8=", "Zg==", "Zh==", "Z" * 44]),
)
moments = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: moment.isoformat(" ", "seconds") + "Z"),
    st.dates().map(lambda day: day.isoformat()),
    st.from_regex(
        r"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]"
        r"([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{1,10})?)?([Zz]|[+-][012][0-9]:?([0-6][0-9])?)?)?",
        fullmatch=True,
    ),
    st.sampled_from(["0000-01-01", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-01:00", "2024-02-30"]),
)
numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-300, 300).map(str),
    st.floats().map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(
        ["-0", "-0.0", "0", "00", "1.", ".5", "1e5", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "127"]
    ),
)
cents = st.one_of(
    st.decimals(-10_000, 10_000, places=2).map(str),
    st.decimals(-1, 1, places=3).map(lambda value: f"{value:f}"),
    st.decimals(places=1, allow_nan=False, allow_infinity=False).map(lambda value: json.dumps(str(value))),
)
values = st.recursive(
    st.one_of(
        texts.map(json.dumps),
        texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
        moments.map(json.dumps),
        numbers,
        st.sampled_from(
            ["true", "false", "null", "nul", "NaN", "Infinity", '"\\ud800"', '"\\u00e4"', '"\\uD83D\\uDE00"', '"\\x"', "{}", "[]", "[1,]"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(st.sampled_from([*INNER, "z"]), inner), max_size=4).map(
            lambda items: "{" + ", ".join(f'"{n}": {v}' for n, v in items) + "}"
        ),
    ),
    max_leaves=8,
)
numbers_list = st.lists(st.one_of(st.integers(-9, 9).map(str), st.just("null")), max_size=4).map(lambda items: f"[{','.join(items)}]")
objects = st.one_of(
    st.none(),
    st.fixed_dictionaries({"a": st.text(max_size=3)}, optional={"b": st.lists(st.integers(0, 9), max_size=3), "z": st.booleans()}),
)
reals = st.lists(st.fixed_dictionaries({"c": st.floats(-9, 9)}), max_size=2)
fitting: dict[str, st.SearchStrategy[str]] = {
    "text": texts.map(json.dumps), "whole": numbers, "small": numbers, "positive": numbers, "real": numbers, "half": numbers,
    "flag": st.sampled_from(["true", "false", "null"]), "day": moments.map(json.dumps), "at": moments.map(json.dumps), "tick": numbers,
    "money": st.one_of(numbers, cents), "wide": st.one_of(numbers, cents), "count": numbers, "share": st.one_of(numbers, cents),
    "body": texts.map(json.dumps), "raw": values, "größe": numbers, "many": numbers_list,
    "deep": st.lists(st.lists(texts, max_size=3), max_size=3).map(json.dumps), "one": objects.map(json.dumps),
    "some": st.lists(st.fixed_dictionaries({}, optional={"a": moments, "b": reals}), max_size=3).map(json.dumps),
}  # fmt: skip
blanks = st.sampled_from(["", "", "", " ", "  ", "\n", "\t", "\r"])


@st.composite
def records(draw: st.DrawFn) -> bytes:
    members = []
    for name in draw(
        st.lists(
            st.sampled_from([*NAMED, "other", "tex", "t\\u0065xt", "text\\u0000"]),
            max_size=7,
            unique_by=lambda name: (name, draw(st.integers(0, 9))),
        )
    ):
        value = draw(fitting[name]) if name in fitting and draw(st.integers(0, 3)) else draw(values)
        members.append(f'{draw(blanks)}"{name}"{draw(blanks)}:{draw(blanks)}{value}')
    whole = ("{" + ",".join(members) + draw(blanks) + "}" + draw(blanks)).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)):
        return whole
    at, kind = draw(st.integers(0, len(whole))), draw(st.integers(0, 3))
    byte = bytes([draw(st.integers(0, 255))])
    return (whole[:at], whole[:at] + byte + whole[at:], whole[:at] + whole[at + 1 :], whole[:at] + byte + whole[at + 1 :])[kind]


def raw(payloads: list[bytes]) -> pl.DataFrame:
    rows = len(payloads)
    return pl.DataFrame(
        {
            "_shard": pl.Series(["shard"] * rows, dtype=pl.String),
            "_sequence": pl.Series(map(str, range(rows)), dtype=pl.String),
            "_subsequence": pl.Series([0] * rows, dtype=pl.UInt32),
            "_arrival": pl.Series([0] * rows, dtype=pl.Datetime("ms", "UTC")),
            "_row": pl.Series(range(rows), dtype=pl.UInt32),
            "_data": pl.Series(payloads, dtype=pl.Binary),
        }
    )


def both(payloads: list[bytes], schema: RecordSchema = SCHEMA, unknown: Unknown = Unknown.IGNORE) -> tuple[Applied, Applied]:
    """What the decoder gives with the kernel and without."""
    with no_kernel():
        ordinary = Json(unknown=unknown).bind(schema)
    return Json(unknown=unknown).bind(schema)(raw(payloads)), ordinary(raw(payloads))


def assert_same(quick: Applied, sure: Applied) -> None:
    assert_frame_equal(quick.frame, sure.frame)
    empty = pl.DataFrame(schema={"_row": pl.UInt32(), "reason": pl.String()})
    assert_frame_equal(empty if quick.rejects is None else quick.rejects, empty if sure.rejects is None else sure.rejects)


def test_the_kernel_exists_wherever_it_can_be_compiled() -> None:
    assert native.KERNEL is not None or shutil.which("cc") is None or os.environ.get(native.SWITCH) == "off"


DECIMALS = parse_schema({"cents": "decimal(6,2)?", "wide": "decimal(38,19)?", "whole": "decimal(20,0)?", "share": "decimal(3,3)?"})


@pytest.mark.compares_kernel
@compared(300)
@given(st.lists(st.tuples(st.sampled_from([name for name, _ in DECIMALS]), st.one_of(cents, cents, numbers)), max_size=12))
@example([("whole", "9" * 19), ("whole", "9" * 20), ("whole", "1" + "0" * 19), ("wide", "9" * 19), ("wide", "-" + "9" * 19)])
@example(
    [("cents", "9999.99"), ("cents", "10000"), ("cents", "-9999.99"), ("cents", "1.500"), ("cents", "1e1"), ("share", "1"), ("share", "0")]
)
@example(
    [("wide", "1" * 19 + "." + "2" * 19), ("wide", "-" + "9" * 19 + "." + "9" * 19), ("wide", "9" * 20), ("wide", "0." + "0" * 18 + "1")]
)
@example(
    [("whole", "9" * 21), ("whole", "-" + "1" * 20), ("wide", "1" * 38), ("wide", "1" * 39), ("wide", "1" * 60), ("wide", "1." + "1" * 25)]
)
@example(
    [
        *[("share", "-100"), ("whole", "0.99"), ("share", "999.999"), ("share", "0.0001"), ("cents", "1e400")],
        *[("share", "999.999"), ("whole", "0.99"), ("share", "-100"), ("share", "0.5")],
    ]
)
def test_decimals_are_the_same_with_and_without_the_kernel(members: list[tuple[str, str]]) -> None:
    assert_same(*both([f'{{"{name}":{value}}}'.encode() for name, value in members], DECIMALS))


@pytest.mark.compares_kernel
@compared(300)
@given(st.lists(records(), max_size=8), st.sampled_from(Unknown))
@example([b'{"text":"a"}', b"", b'{"text":"b"}'], Unknown.IGNORE)
@example([b'{"text":"a","text":"b"}', b'{"whole":-0}', b'{"real":1e400}', b'{"other":1e400}', b'{"other":-1e-400}'], Unknown.IGNORE)
@example(
    [b'{"text":"\xc3"}', b'{"other":"\xed\xa0\x80"}', b'{"text":"' + b"x" * 7 + b'\xf0\x9f\x98\x80"}', b'{"text":"\x7f"}'], Unknown.REJECT
)
@example(
    [b'{"whole":12345678901234567890}', b'{"real":0.1}', b'{"real":9007199254740993}', b'{"real":123456789.123456789e-5}'], Unknown.IGNORE
)
@example(
    [b'{"many":[1,2,"x"]}', b'{"many":[3]}', b'{"some":[{"b":[{"c":1},{"c":"x"}]}]}', b'{"some":[{"b":[{"c":2}]},{}]}'], Unknown.IGNORE
)
@example([b'{"at":"2024-01-01T00:00:00.1234567Z"}', b'{"at":"1969-01-01T00:00:00.1234567Z"}', b'{"at":"2024-01-01 00:00"}'], Unknown.IGNORE)
@example(
    [b'{"at":"2024-01-01T00:00:00.123456+0130"}', b'{"at":"2024-01-01T00:00:00-01"}', b'{"at":"2024-01-01T00:00:00z"}'], Unknown.IGNORE
)
@example(
    [b'{"half":3.4e38}', b'{"half":3.5e38}', b'{"half":0.1}', b'{"body":"Zg=="}', b'{"body":"Zh=="}', b'{"body":"Zg"}'], Unknown.CAPTURE
)
def test_rows_and_reasons_are_the_same_with_and_without_the_kernel(payloads: list[bytes], unknown: Unknown) -> None:
    assert_same(*both(payloads, unknown=unknown))


@pytest.mark.compares_kernel
@compared(100)
@given(st.lists(records(), max_size=6), st.sampled_from(Unknown))
def test_rows_and_reasons_are_the_same_with_required_columns(payloads: list[bytes], unknown: Unknown) -> None:
    schema = parse_schema({"text": "string", "whole": "int64", "at": "timestamp?", "one": "object{a: string, b: list<int32>}?"})

    assert_same(*both(payloads, schema, unknown))


@pytest.mark.parametrize("length", range(1, 27))
@pytest.mark.parametrize("after", ["", " " * 8], ids=["at the end", "in the middle"])
def test_a_name_is_told_from_every_other_that_differs_in_one_place(length: int, after: str) -> None:
    name = "abcdefghijklmnopqrstuvwxyz"[:length]
    near = [name[:at] + "0" + name[at + 1 :] for at in range(length)]
    payloads = [f'{{"{each}":{number}}}{after}'.encode() for number, each in enumerate([name, *near, name[:-1], f"{name}0"])]
    for other in near:
        schema = parse_schema({name: "int64?", other: "int64?"})
        for applied in both(payloads, schema):
            rows = applied.frame.select(name, other).rows()
            assert rows == [
                (0, None),
                *((None, number if each == other else None) for number, each in enumerate(near, 1)),
                *[(None, None)] * 2,
            ]


def test_plain_records_are_read_by_the_kernel_alone() -> None:
    flights = flights_table().head(5000)
    kinds = {pl.String(): "string?", pl.Int64(): "int64?"}
    schema = parse_schema({name: kinds.get(dtype, "timestamp?") for name, dtype in flights.schema.items()})
    reader = json_reader(schema, strict=True)
    if reader is None:
        assert native.KERNEL is None
        return

    columns, marked = reader.read(pl.Series(flights.write_ndjson().encode().splitlines(), dtype=pl.Binary))

    assert marked is None
    assert_frame_equal(columns.drop("time_hour"), flights.drop("time_hour"), check_dtypes=False)


def test_slices_chunks_and_empty_columns_are_read() -> None:
    rows = [b'{"whole":%d, "text":"%d"}' % (number, 10**15 + number) for number in range(10)]
    schema = parse_schema({"whole": "int64", "text": "string"})
    decode = Json().bind(schema)

    assert decode(raw(rows)[3:6]).frame["whole"].to_list() == [3, 4, 5]
    assert decode(pl.concat([raw(rows[:4]), raw(rows[4:])], rechunk=False)).frame["text"].to_list() == [
        str(10**15 + at) for at in range(10)
    ]
    assert decode(raw(rows)[:0]).frame.columns == both([], schema)[1].frame.columns


def test_many_invalid_records_among_valid_ones_are_found() -> None:
    assert_same(*both([BROKEN[number % 6] if number % 3 else b'{"text":"%d"}' % number for number in range(3000)]))


def test_more_fields_than_columns_in_any_order_are_read() -> None:
    names = [f"name{number}" for number in range(100)]
    schema = parse_schema(dict.fromkeys(names[::2], "int64?"))
    rows = [json.dumps({name: at for at, name in enumerate(names[turn:] + names[:turn])}).encode() for turn in range(0, 100, 7)]

    assert_same(*both(rows, schema))


def test_deep_values_are_left_to_the_python_reader() -> None:
    rows = [b'{"other":' + b"[" * depth + b"]" * depth + b"}" for depth in (1, 97, 98, 99, 100, 126, 127, 128, 129, 5000)]

    assert_same(*both(rows))


def test_more_columns_than_the_kernel_supports_are_left_to_the_python_reader() -> None:
    schema = parse_schema({f"c{number}": "int64?" for number in range(1100)})

    assert json_reader(schema, strict=False) is None
    assert_same(*both([b'{"c1099":5}', b'{"c0":"x"}', b"{"], schema))


@pytest.mark.compares_kernel
@pytest.mark.parametrize("count", [64, 65, 1024])
def test_records_of_many_fields_are_read_as_by_the_python_reader(count: int) -> None:
    last = f"c{count - 1}"
    schema = parse_schema({f"c{number}": "int64?" for number in range(count - 1)} | {last: "int64"})

    every = json.dumps({f"c{number}": number for number in range(count)}).encode()
    if native.KERNEL is not None:
        assert json_reader(schema, strict=False).read(pl.Series([every]))[1] is None
    assert_same(*both([every, f'{{"{last}":5}}'.encode(), f'{{"{last}":5,"{last}":6}}'.encode(), b'{"c0":1}'], schema))


KEPT = parse_schema({"whole": "int64?", "raw": "json?", "text": "string?"})
REST = [
    b'{"whole":1}',
    b'{"x":1}',
    b'{ "x" : [ 1, {"whole": 2} ] , "whole" : 1 , "y":null}',
    '{"text":"a\\n","größe":"ä\\u00e4","raw":{"x":1},"z":"0123456789"}'.encode(),
    b'{"_extra":5,"":6,"text":"\\u0041 long enough to lie elsewhere"}',
    b"{" + b",".join(b'"name%d":%d' % (number, number) for number in range(256)) + b"}",
]
DOUBTFUL = [
    b'{"x":1,"y":2,"x":3}',
    b'{"x":1,"\\u0078":3}',
    b'{"x":1,"x":{"whole":"q"},"whole":"q"}',
    b"{" + b",".join(b'"name%d":%d' % (number, number) for number in range(300)) + b"}",
    b"{" + b",".join(b'"name%d":%d' % (number % 40, number) for number in range(50)) + b"}",
]


def test_fields_without_a_column_are_captured_as_written() -> None:
    rows = [row for pair in zip(REST, [*DOUBTFUL, b"{"], strict=True) for row in pair]

    quick, sure = both(rows, KEPT, Unknown.CAPTURE)
    assert_same(quick, sure)
    assert sure.frame.filter(pl.col("_row") == 4)["_extra"].item() == '{"x":[ 1, {"whole": 2} ],"y":null}'
    reader = json_reader(KEPT, strict=False, rest="_extra")
    if reader is not None:
        assert reader.read(pl.Series(REST, dtype=pl.Binary))[1] is None
        _, marked = reader.read(pl.Series(DOUBTFUL, dtype=pl.Binary))
        assert marked is not None
        assert marked.all()


def test_captured_fields_must_be_the_last_text_column() -> None:
    if native.KERNEL is not None:
        for children in [(), ((5, b"", 0, False, 1, ()),)]:
            with pytest.raises(ValueError, match="kept in the last child"):
                native.KERNEL.plan((21, b"", 1, 2, 1, children))


def test_wide_decimals_are_read_by_the_kernel_alone() -> None:
    reader = json_reader(parse_schema({"wide": "decimal(38,2)"}), strict=True)
    if reader is None:
        return
    values = ["12345678901234567890.25", "-" + "9" * 36 + ".99", "9" * 20, "0.10", "1.50" + "0" * 30, "0." + "0" * 20]

    columns, marked = reader.read(pl.Series([f'{{"wide":{value}}}'.encode() for value in values], dtype=pl.Binary))

    assert marked is None
    assert [str(value) for value in columns["wide"]] == [*values[:2], f"{values[2]}.00", "0.10", "1.50", "0.00"]


def kinds(depth: int) -> st.SearchStrategy[str]:
    """Types of objects inside of others, whose fields have few names, so that most occur at several levels."""
    plain = st.sampled_from(["int8?", "string?", "bool?", "list<int8?>?", "int16"])
    if not depth:
        return plain
    fields = st.lists(st.tuples(st.sampled_from("abc"), kinds(depth - 1)), min_size=1, max_size=3, unique_by=lambda field: field[0])
    inner = fields.map(lambda named: "object{" + ", ".join(f"{name}: {kind}" for name, kind in named) + "}?")
    return st.one_of(plain, inner, inner.map(lambda kind: f"list<{kind}>?"))


filled: dict[str, list[object]] = {
    "int8?": [1, 2, None], "int16": [300, None], "string?": ["x", None], "bool?": [True, None], "list<int8?>?": [[3, None], [], None],
}  # fmt: skip


@st.composite
def members(draw: st.DrawFn, fields: tuple[tuple[str, Type], ...]) -> dict[str, object]:
    """Values of ``fields`` in any order, some of them missing."""
    kept = draw(st.permutations(fields))[draw(st.integers(0, 1)) :]
    return {name: draw(value_of(kind)) for name, kind in kept}


def value_of(kind: Type) -> st.SearchStrategy[object]:
    if kind.item is not None and kind.item.fields:
        return st.lists(members(kind.item.fields), max_size=2)
    return st.none() | members(kind.fields) if kind.fields else st.sampled_from(filled[kind.text])


@pytest.mark.compares_kernel
@compared(200)
@given(st.data())
def test_fields_with_one_name_at_several_levels_are_kept_apart(data: st.DataObject) -> None:
    columns = data.draw(st.lists(st.tuples(st.sampled_from("abc"), kinds(2)), min_size=1, max_size=3, unique_by=lambda column: column[0]))
    schema = parse_schema(dict(columns))
    payloads = [json.dumps(each).encode() for each in data.draw(st.lists(members(schema.fields), min_size=1, max_size=5))]
    assert_same(*both(payloads, schema))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"user":{"id":5},"id":7}', ({"id": 5, "name": None}, 7)),
        ('{"user":{"id":null,"name":"x"},"id":7}', ({"id": None, "name": "x"}, 7)),
        ('{"id":7,"user":{"name":"x","id":5}}', ({"id": 5, "name": "x"}, 7)),
    ],
)
def test_a_nested_field_and_a_later_column_may_have_the_same_name(record: str, expected: tuple[object, ...]) -> None:
    schema = parse_schema({"user": "object{id: int64?, name: string?}?", "id": "int64?"})
    for made in both([record.encode()] * 3, schema):
        assert made.frame.select("user", "id").rows() == [expected] * 3
