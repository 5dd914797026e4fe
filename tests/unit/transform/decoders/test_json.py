import itertools
import json
from contextlib import nullcontext
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from stream.transform.decode import Unknown
from stream.transform.decoders.json import WINDOW_ROWS, Json
from stream.transform.decoders.json_rows import Reader
from stream.transform.stage import SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import raw_frame, user
from tests.kernel import no_kernel

SCHEMA = parse_schema(
    {
        "a": "int64",
        "s": "string?",
        "f": "float32?",
        "t": "timestamp?",
        "e": "timestamp(ms)?",
        "d": "decimal(6,2)?",
        "b": "binary?",
        "day": "date?",
        "l": "list<timestamp>?",
        "o": {"x": "int8", "y": "date?"},
        "j": "json?",
    }
)
GOOD = b'{"a":1,"o":{"x":1}}'


def decode(records, unknown=Unknown.IGNORE, schema=SCHEMA):
    applied = Json(unknown=unknown).bind(schema)(raw_frame(records))
    return applied.frame, {} if applied.rejects is None else dict(applied.rejects.iter_rows())


def reason(record, unknown=Unknown.IGNORE):
    """The verdict on ``record`` alone and between good ones, which must be the same; None if it is accepted."""
    _, alone = decode([record], unknown)
    frame, among = decode([GOOD, record, GOOD], unknown)
    assert alone.get(0) == among.get(1)
    assert set(among) <= {1}
    assert frame["_row"].to_list() == [row for row in (0, 1, 2) if row not in among]
    return among.get(1)


VERDICTS = [
    (b"", "empty_record"),
    (b" \r\n\t", "empty_record"),
    (b"null", "json_not_object"),
    (b"[1]", "json_not_object"),
    (b"3", "json_not_object"),
    (b'{"a":1,"o":{"x":1}', "json_syntax"),
    (b'{"a":1,"o":{"x":1}}}', "json_syntax"),
    (GOOD + GOOD, "json_syntax"),
    (GOOD + b"\n" + GOOD, "json_syntax"),
    (GOOD + b',"q":1', "json_syntax"),
    (GOOD + b',"r":{}', "json_syntax"),
    (GOOD + b'}\n{"r":' + GOOD, "json_syntax"),
    (b'{"a":1,"o":{"x":1},"s":"a\nb"}', "json_syntax"),
    (b'{"a":1,"o":{"x":1},"s":"\\ud800"}', "json_syntax"),
    (b'{"a":1,"o":{"x":1},"z":NaN}', "json_syntax"),
    (b"\xef\xbb\xbf" + GOOD, "json_syntax"),
    (b'{"a":1,"o":{"x":1},"z":"\xff"}', "invalid_utf8"),
    (b'{"a":1,"a":2,"o":{"x":1}}', "duplicate_field"),
    (b'{"o":{"x":1}}', "missing_field:a"),
    (b'{"a":null,"o":{"x":1}}', "missing_field:a"),
    (b'{"a":1,"o":{}}', "missing_field:o"),
    (b'{"a":1}', "missing_field:o"),
    (b'{"a":1,"o":{"x":1},"l":[null]}', "missing_field:l"),
    (b'{"a":1.0,"o":{"x":1}}', "wrong_type:a"),
    (b'{"a":"1","o":{"x":1}}', "wrong_type:a"),
    (b'{"a":true,"o":{"x":1}}', "wrong_type:a"),
    (b'{"a":9223372036854775808,"o":{"x":1}}', "wrong_type:a"),
    (b'{"a":1,"o":{"x":128}}', "wrong_type:o"),
    (b'{"a":1,"o":[]}', "wrong_type:o"),
    (b'{"a":1,"o":{"x":1,"y":"2013-13-01"}}', "wrong_type:o"),
    (b'{"a":1,"o":{"x":1},"t":"soon"}', "wrong_type:t"),
    (b'{"a":1,"o":{"x":1},"e":99999999999999999}', "wrong_type:e"),
    (b'{"a":1,"o":{"x":1},"d":1.005}', "wrong_type:d"),
    (b'{"a":1,"o":{"x":1},"d":"x"}', "wrong_type:d"),
    (b'{"a":1,"o":{"x":1},"f":1e39}', "wrong_type:f"),
    (b'{"a":1,"o":{"x":1},"b":"*"}', "wrong_type:b"),
    (b'{"a":1,"o":{"x":1},"day":"2013-02-30"}', "wrong_type:day"),
    (b'{"a":1,"o":{"x":1},"l":["x"]}', "wrong_type:l"),
    (b'{\n"a": 1,\r\n "o": {"x": 1}\n}\n', None),
    (b'{"z":1,"z":2,"a":1,"o":{"x":1}}', None),
    (b'{"\\u0061":1,"o":{"x":1}}', None),
]


@pytest.mark.parametrize(("record", "expected"), VERDICTS)
def test_each_record_is_judged_on_its_own(record, expected):
    assert reason(record) == expected


@pytest.mark.parametrize("before", [65_400, 65_536, 200_000])
def test_depth_is_checked_to_the_end_of_a_long_record(before):
    def nested(depth):
        return b'{"a":1,"o":{"x":1},"s":"' + b"." * before + b'","z":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert reason(nested(128)) is None
    assert reason(nested(129)) == "json_too_deep"


def test_depth_has_one_limit_whatever_surrounds_it():
    def nested(depth):
        return b'{"a":1,"o":{"x":1},"z":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert reason(nested(128)) is None
    assert reason(nested(129)) == "json_too_deep"
    assert reason(b'{"z":' + b"[" * 1_000_000) == "json_too_deep"
    assert reason(b'{"a":1,"o":{"x":1},"s":"' + b"[" * 1000 + b'"}') is None


def test_a_record_of_ten_mebibytes_is_read():
    big = b'{"a":1,"o":{"x":1},"s":"' + b"x" * (10 * 1024 * 1024) + b'"}'
    frame, rejects = decode([GOOD, big, GOOD])
    assert not rejects
    assert frame["s"].str.len_bytes().to_list() == [None, 10 * 1024 * 1024, None]


def test_values_have_their_declared_types():
    record = (
        b'{"a":-5,"s":"\\u00e9","f":0.5,"t":"2013-01-01T00:00:00+02:00","e":1,"d":"1.5","b":"aGk=","day":"2013-01-02",'
        b'"l":["2013-01-01"],"o":{"x":1,"y":"2013-01-03"},"j":{"k": [1, 2]}}'
    )
    frame, rejects = decode([record])
    assert not rejects
    assert frame.select("a", "s", "f", "b", "j").row(0) == (-5, "é", 0.5, b"hi", '{"k": [1, 2]}')
    assert frame["d"].to_list() == [Decimal("1.50")]
    assert frame["day"].to_list() == [date(2013, 1, 2)]
    assert frame["t"].to_list() == [datetime(2012, 12, 31, 22, tzinfo=UTC)]
    assert frame["l"].to_list() == [[datetime(2013, 1, 1, tzinfo=UTC)]]
    assert frame["o"].to_list() == [{"x": 1, "y": date(2013, 1, 3)}]
    assert frame["e"].to_physical().to_list() == [1000]


def test_unknown_fields_are_ignored_rejected_or_captured():
    record = b'{"a":1,"o":{"x":1},"z":{"deep": [1]},"y":"q"}'
    assert reason(record) is None
    assert reason(record, Unknown.REJECT) == "unknown_field"
    assert reason(b'{"a":1,"o":{"x":1,"zz":1}}', Unknown.REJECT) == "unknown_field"
    frame, rejects = decode([record, GOOD], Unknown.CAPTURE)
    assert not rejects
    assert frame["_extra"].to_list() == ['{"z":{"deep": [1]},"y":"q"}', None]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (b"99.99", True),
        (b"-99.99", True),
        (b"1.500", True),
        (b"1500e-3", True),
        (b"0.000", True),
        (b'"1e1"', True),
        (b"100", False),
        (b"-100", False),
        (b"1e2", False),
        (b"1.555", False),
        (b'"NaN"', False),
        (b'" 1"', False),
    ],
)
def test_a_decimal_fits_or_is_rejected_whatever_the_other_records_are(text, fits):
    schema = parse_schema({"d": "decimal(4,2)"})
    expected = {} if fits else {0: "wrong_type:d"}
    assert decode([b'{"d":' + text + b"}"], schema=schema)[1] == expected
    assert decode([b'{"d":' + text + b"}", b"bad"], schema=schema)[1] == {**expected, 1: "json_syntax"}


WIDE = [
    ("decimal(38,38)", "99.99"),
    ("decimal(38,38)", "-1"),
    ("decimal(38,18)", "31012228345984555143972981506162251"),
    ("decimal(38,2)", "99999999999999999999999999999999999999"),
    ("decimal(37,37)", "18446744073709551616"),
    ("decimal(37,37)", "8303.8836859"),
    ("decimal(30,18)", "1000000000000"),
]


@pytest.mark.parametrize("others", [0, 1, 500])
@pytest.mark.parametrize("form", ["%s", "list<%s>", "object{a: %s}"])
@pytest.mark.parametrize(("kind", "text"), WIDE)
def test_a_number_with_too_many_integer_digits_is_rejected_and_never_changed(kind, text, form, others):
    value = {"%s": "%s", "list<%s>": "[%s]", "object{a: %s}": '{"a":%s}'}[form]
    schema = parse_schema({"n": form % kind})
    with no_kernel():
        decode = Json().bind(schema)
    got = decode(raw_frame([b'{"n":%s}' % (value % text).encode(), *[b'{"n":%s}' % (value % "0.25").encode()] * others]))
    assert got.rejects is not None
    assert got.rejects.rows() == [(0, "wrong_type:n")]
    small = Decimal("0.25")
    assert got.frame["n"].to_list() == [{"%s": small, "list<%s>": [small], "object{a: %s}": {"a": small}}[form]] * others


@pytest.mark.parametrize(("kind", "text"), [("decimal(38,38)", "0." + "9" * 38), ("decimal(38,18)", "9" * 20 + "." + "9" * 18)])
def test_the_largest_number_that_fits_is_kept(kind, text):
    frame, rejects = decode([f'{{"n":-{text}}}'.encode()], schema=parse_schema({"n": kind}))
    assert not rejects
    assert frame["n"].to_list() == [Decimal(f"-{text}")]


@pytest.mark.parametrize("text", ["0000-01-01", "2023-02-29", "  24-01-01", "+024-01-01"])
def test_text_that_is_not_a_date_is_rejected(text):
    assert decode([b'{"d":"%s"}' % text.encode()], schema=parse_schema({"d": "date"}))[1] == {0: "wrong_type:d"}


@pytest.mark.parametrize("text", ["  24-01-01T00:00:00Z", "+024-01-01T00:00:00Z", "2024-01-01T00:00: 0Z", "2024- 1-01T00:00:00Z"])
def test_a_timestamp_with_blanks_or_signs_is_rejected(text):
    assert decode([b'{"t":"%s"}' % text.encode()], schema=parse_schema({"t": "timestamp"}))[1] == {0: "wrong_type:t"}


@pytest.mark.parametrize("filler", [0, 100])
def test_invalid_values_of_two_nullable_columns_in_one_window_are_rejected(filler):
    schema = parse_schema({"at": "timestamp?", "d": "decimal(4,2)?", "day": "date?"})
    frame, rejects = decode([b'{"at":"x"}', b'{"d":100}', b'{"day":"y"}', *[b'{"d":1}'] * filler], schema=schema)
    assert rejects == {0: "wrong_type:at", 1: "wrong_type:d", 2: "wrong_type:day"}
    assert len(frame) == filler


def test_order_is_kept_across_windows():
    schema = parse_schema({"n": "int64"})
    records = [b'{"n":%d}' % n if n % 1000 else b"bad" for n in range(2 * WINDOW_ROWS + 7)]
    frame, rejects = decode(records, schema=schema)
    assert frame["n"].to_list() == [n for n in range(len(records)) if n % 1000]
    assert frame["_row"].to_list() == frame["n"].to_list()
    assert rejects == dict.fromkeys(range(0, len(records), 1000), "json_syntax")


def test_repeated_fields_are_found_however_they_are_written():
    schema = parse_schema({"n": "int64", "m": "int64?"})
    bad = [b'{"n":1,"n":2}', b'{"n":1,"m":1,"m":2}', b'{"n":1,"\\u006e":2}']
    records = [bad[n // 2 % 3] if n % 2 else b'{"n":1}' for n in range(120)]
    frame, rejects = decode(records, schema=schema)
    assert frame["_row"].to_list() == list(range(0, 120, 2))
    assert set(rejects.values()) == {"duplicate_field"}


def test_a_schema_of_json_columns_alone_still_checks_the_records():
    schema = parse_schema({"j": "json"})
    frame, rejects = decode([b'{"j":[1]}', b'{"j":1}}{"r":{"j":2}', b"{}", b'{"j":null}'], schema=schema)
    assert user(frame) == [{"j": "[1]"}]
    assert rejects == {1: "json_syntax", 2: "missing_field:j", 3: "missing_field:j"}


def test_a_schema_is_required_and_extra_is_reserved_for_capture():
    with pytest.raises(SchemaMismatch, match="needs a schema"):
        Json().output(None)
    with pytest.raises(SchemaMismatch, match="captured"):
        Json(unknown=Unknown.CAPTURE).output(parse_schema({"_extra": "string"}))


def test_no_records_give_the_declared_columns():
    frame, rejects = decode([])
    assert not rejects
    assert dict(frame.schema) == {**raw_frame([]).select(frame.columns[:5]).schema, **Json().output(SCHEMA)}


@pytest.mark.parametrize("times", [1, 7])
def test_scattered_invalid_records_are_judged_as_alone(times):
    """A few are found one at a time, many by checking each record; either way the good records between them stay."""
    records, expected = [GOOD], {}
    for record, verdict in VERDICTS * times:
        if verdict is not None:
            expected[len(records)] = verdict
        records += [record, *[GOOD] * 150]
    frame, rejects = decode(records)
    assert rejects == expected
    assert frame["_row"].to_list() == [row for row in range(len(records)) if row not in expected]
    assert frame.filter(pl.col("_row").is_in(list(expected)).not_())["a"].null_count() == 0


STOPPERS = [
    GOOD + b'}\n{"r":' + GOOD,
    GOOD[:-1],
    b'{"a":1,"o":{"x":1},"s":5}',
    b'{"a":"1","o":{"x":1}}',
    b'{"a":1,"a":2,"o":{"x":1}}',
    b"\xff",
    b"[" * 200,
    b"",
]


@pytest.mark.parametrize("large", [10, 300_000])
@pytest.mark.parametrize(("one", "other"), list(itertools.product(STOPPERS, STOPPERS)))
def test_a_record_that_stops_the_reader_affects_no_other(one, other, large):
    long = b'{"a":2,"o":{"x":1},"s":"' + b"x" * large + b'"}'
    records = [GOOD, long, GOOD] * 30
    bad = {1: one, 31: other, 88: one}
    for at, record in bad.items():
        records[at] = record
    frame, rejects = decode(records)
    assert rejects == {at: reason(record) for at, record in bad.items()}
    assert frame["_row"].to_list() == [row for row in range(90) if row not in bad]
    assert frame["a"].to_list() == [2 if row % 3 == 1 else 1 for row in range(90) if row not in bad]


class Impatient(Reader):
    """Fails if each record of a window would be checked."""

    def _sift(self, records):
        raise AssertionError(len(records))


@pytest.mark.parametrize(
    "good", [GOOD, json.dumps({"a": 1, "o": {"x": 1}, "s": "x" * 80}, indent=1).encode()], ids=["on a line", "on lines"]
)
@pytest.mark.parametrize("bad", [b"\xff", GOOD[:-1], b"", b"[1]", b'{"a":"1","o":{"x":1}}', b'{"a":1,"a":2,"o":{"x":1}}'])
def test_a_few_invalid_records_in_a_large_window_do_not_cause_record_by_record_reading(good, bad):
    records = [good] * 8000
    for at in (17, 4000, 7999):
        records[at] = bad
    window = Impatient(SCHEMA, strict=False).read(pa.array(records, pa.large_binary()))
    assert [at for at, _ in window.rejects] == [17, 4000, 7999]
    assert {why for _, why in window.rejects} == {reason(bad)}
    assert window.frame["a"].to_list() == [1] * 7997


@pytest.mark.parametrize("others", [0, 1, 500])
def test_a_decimal_too_small_for_a_double_is_rejected_alone_and_among_others(others):
    with no_kernel():
        decode = Json().bind(parse_schema({"n": "decimal(38,2)?"}))
    got = decode(raw_frame([b'{"n":1e-999}', *[b'{"n":1.5e-1}'] * others]))
    assert got.rejects is not None
    assert got.rejects.rows() == [(0, "wrong_type:n")]
    assert got.frame.height == others


@pytest.mark.parametrize("others", [0, 500])
@pytest.mark.parametrize("small", ["1e-999", "1e-41", "1.25e-39", '"1e-41"', "1e-77", "1e-79"])
def test_a_nested_decimal_too_small_for_its_type_is_rejected_too(small, others):
    with no_kernel():
        decode = Json().bind(parse_schema({"o": "object{l: list<object{n: decimal(12,2)?}>?}?", "wide": "decimal(38,20)?"}))
    good = b'{"o":{"l":[{"n":1.5e-1}]}}'
    records = [f'{{"o":{{"l":[{{"n":{small}}}]}}}}'.encode(), *[good] * others, f'{{"wide":{small}}}'.encode()]
    got = decode(raw_frame(records))
    assert got.rejects is not None
    assert got.rejects.rows() == [(0, "wrong_type:o"), (others + 1, "wrong_type:wide")]
    assert got.frame["o"].to_list() == [{"l": [{"n": Decimal("0.15")}]}] * others


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "ordinary"])
@pytest.mark.parametrize("others", [0, 500])
@pytest.mark.parametrize("kind", ["decimal(4,2)", "decimal(38,36)", "decimal(2,0)"])
def test_trailing_zeros_beyond_the_scale_do_not_count_as_digits(kind, others, kernel):
    with nullcontext() if kernel else no_kernel():
        decode = Json().bind(parse_schema({"n": kind, "o": f"object{{n: {kind}}}"}))
    written = ["12.0000", "12." + "0" * 40, '"-12.00000000"', "0E-10", "0E+5", "0." + "0" * 50, "-0.0"]
    got = decode(raw_frame([f'{{"n":{each},"o":{{"n":{each}}}}}'.encode() for each in [*written, *["1"] * others]]))
    assert got.rejects is None or got.rejects.is_empty()
    assert got.frame["n"].to_list()[: len(written)] == [12, 12, -12, 0, 0, 0, 0]
    assert got.frame["o"].struct.field("n").to_list() == got.frame["n"].to_list()


HUGE = ["1e400", "-1E+309", "9" * 400, '{"x":[1.5e999,"1e400"]}', '{"x":123456e305}']


@pytest.mark.parametrize("kernel", [nullcontext, no_kernel])
@pytest.mark.parametrize("text", HUGE)
def test_numbers_beyond_the_range_of_a_double_are_kept_as_written(text, kernel):
    record = b'{"a":1,"o":{"x":1,"more":%b},"j":%b,"z":%b}' % ((text.encode(),) * 3)
    for records in ([record], [GOOD, record, GOOD], [GOOD, record] * 40):
        with kernel():
            frame, rejects = decode(records)
            captured, refused = decode(records, Unknown.CAPTURE)
        at = records.index(record)
        assert (frame["j"][at], frame["a"][at], rejects) == (text, 1, {})
        assert (captured["_extra"][at], refused) == ('{"z":' + text + "}", {})


@pytest.mark.parametrize("kernel", [nullcontext, no_kernel])
@pytest.mark.parametrize(("name", "reason"), [("a", "wrong_type:a"), ("f", "wrong_type:f"), ("d", "wrong_type:d"), ("s", "wrong_type:s")])
def test_numbers_beyond_the_range_of_a_double_have_the_wrong_type_for_other_columns(name, reason, kernel):
    record = b'{"a":1,"o":{"x":1},"j":1e400}'.replace(b'"a":1,', b"" if name == "a" else b'"a":1,')[:-1] + b',"%b":1e400}' % name.encode()
    with kernel():
        assert decode([GOOD, record])[1] == {1: reason}
