import base64
import json
import string
from contextlib import suppress
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from stream import native
from stream.batch import Outcome
from stream.transform.decoders.csv import Csv
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, raw_frame, ticks
from tests.kernel import compared, no_kernel

SCHEMA = parse_schema({"a": "int64?", "b": "string", "c": "string?"})


def run(*records, **options):
    return compile_chain(Csv.model_validate(options), SCHEMA, [], Resources(), ticks()).run(batch(records), "s")


def test_lines_become_rows_of_their_record():
    got = run(b"1,x,y\r\n2,,\n\n,z,\r", b'3,"a, ""b""\nc",q\n')
    assert got.frame.select("_row", "a", "b", "c").rows() == [
        (0, 1, "x", "y"),
        (0, 2, "", None),
        (0, None, "z", None),
        (1, 3, 'a, "b"\nc', "q"),
    ]


@pytest.mark.parametrize(
    ("record", "options", "reason"),
    [
        (b"", {}, "empty_record"),
        (b"\n\r\n", {}, "empty_record"),
        (b"\xff,x,y", {}, "invalid_utf8"),
        (b"1,x", {}, "csv_fields"),
        (b"1,x,y,z", {}, "csv_fields"),
        (b'1,"x,y', {}, "csv_syntax"),
        (b'1,"x"y,z', {}, "csv_syntax"),
        (b'1,x,y"2",x,y', {}, "csv_fields"),
        (b"1,x,y\nq,x,y", {}, "wrong_type:a"),
        (b"1,NULL,y", {"null": "NULL"}, "missing_field:b"),
        (b"a,b\n1,x", {"header": True}, "missing_field:c"),
        (b"a,b,c,b\n1,x,y,z", {"header": True}, "duplicate_field"),
        (b"a,b,c,d\n1,x,y,z", {"header": True, "unknown": "reject"}, "unknown_field"),
        (b"a,b,c\n1,x", {"header": True}, "csv_fields"),
        (b'1,"' + b"x" * 140_000 + b'",y', {}, "csv_syntax"),
    ],
)
def test_a_record_with_an_invalid_line_is_rejected_as_a_whole(record, options, reason):
    good = b"a,b,c\n1,x,y" if options.get("header") else b"1,x,y"
    got = run(good, record, good, **options)
    assert got.frame["_row"].to_list() == [0, 2]
    assert got.settled.rows() == [(1, Outcome.DEAD_LETTERED, "decode", reason)]


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf5\x80\x80\x80",
        b"\xe1\x80",
    ],
)
def test_bytes_that_are_no_text_are_refused_wherever_they_are_also_in_a_field_that_nobody_reads(bad):
    long = b"x" * 20
    texts = [bad, bad + long, long + bad, long + bad + long, "ä".encode() + bad]
    fields = [*texts, *(b'"%s"' % text for text in texts), *(b'"a"",%s"' % text for text in texts)]
    records = [b"1,%s,y" % field for field in fields]
    headed = [b"a,d,b,c\n1,%s,x,y" % field for field in fields]
    for got in (run(*records, b"1,x,y"), run(*headed, b"a,b,c\n1,x,y", header=True)):
        assert got.frame["_row"].to_list() == [len(fields)]
        assert got.settled["reason"].to_list() == ["invalid_utf8"] * len(fields)


def test_a_header_names_the_columns_of_its_record():
    got = run(b"c,b,z,a\ny,x,?,1", b"a,b,c\n2,x,y\n", b"b,a,c", header=True)
    assert got.frame.select("_row", "a", "b", "c").rows() == [(0, 1, "x", "y"), (1, 2, "x", "y")]
    assert got.settled.rows() == [(2, Outcome.FILTERED, "decode", "filtered")], "a header alone holds no rows"


def test_other_delimiters_quotes_and_null_words_work():
    got = run(b"1;'a;b';-\n-;c;d", delimiter=";", quote="'", null=["-"])
    assert got.frame.select("a", "b", "c").rows() == [(1, "a;b", None), (None, "c", "d")]


@pytest.mark.parametrize(
    "options", [{"delimiter": ",,"}, {"delimiter": "\n"}, {"delimiter": "é"}, {"quote": ","}, {"unknown": "capture"}, {"quote": ""}]
)
def test_invalid_options_are_refused(options):
    with pytest.raises(ValidationError):
        Csv.model_validate(options)


def test_a_schema_of_scalar_types_is_required():
    with pytest.raises(SchemaMismatch, match="needs a schema"):
        Csv().output(None)
    with pytest.raises(SchemaMismatch, match="cannot be read as list"):
        Csv().output(parse_schema({"a": "list<int64>"}))


KINDS = parse_schema(
    {
        "whole": "int64?",
        "small": "int8",
        "positive": "uint64?",
        "real": "float64?",
        "half": "float32?",
        "flag": "bool?",
        "day": "date?",
        "at": "timestamp?",
        "tick": "timestamp(ms)?",
        "money": "decimal(6,2)?",
        "wide": "decimal(38,10)?",
        "body": "binary?",
        "text": "string",
        "maybe": "string?",
    }
)
GOOD = {
    "whole": ["0", "-7", "9223372036854775807", "007"],
    "small": ["1", "-127"],
    "positive": ["9223372036854775808"],
    "real": ["1.5", "-0.0", "2e-3", "7"],
    "half": ["0.1", "3.4e38"],
    "flag": ["true", "False", "TRUE"],
    "day": ["2013-01-01"],
    "at": ["2013-01-01T05:00:00Z", "2013-01-01 05:00"],
    "tick": ["1357020000000", "-1"],
    "money": ["12.5", "-0", "9999.99"],
    "wide": ["1234567890.25"],
    "body": ["eA==", ""],
    "text": ["", "x", "plain text of many letters", "ä", "NULL"],
    "maybe": ["", "y", "another text of many letters", "✈" * 6, "NULL"],
}
ODD = [
    "",
    " ",
    "+5",
    "-",
    "-0",
    "00",
    "--1",
    "-00",
    "1.",
    ".5",
    "1e5",
    "1e400",
    "-1e-400",
    "9223372036854775808",
    "-9223372036854775808",
    "128",
    "1.005",
    "100000",
    "1e2",
    "0001-01-01",
    "2013-02-30",
    "253402300800000",
    "yes",
    "tru",
    "\u212a",
    "NaN",
    "inf",
    "1_0",
    "0x1",
    "Zh==",
    "x\x00y",
    "x" * 20,
    "é" * 20,
    "a,b",
    'a"b',
    '""',
    "a\nb",
    "\r",
    "'",
    ";",
    "\t",
    "1" * 25,
    "12345678901234567890.25",
    "18446744073709551615",
]
NAMES = [name for name, _ in KINDS]


@st.composite
def records(draw: st.DrawFn, options: dict[str, Any]) -> bytes:
    delimiter, quote, end = options["delimiter"], options["quote"], draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))

    def field(text: str) -> str:
        # Now and then a field stands without the quotes that it needs.
        if quote is None:
            return text
        wanted = any(mark in text for mark in (delimiter, quote, "\n", "\r")) and draw(st.integers(0, 9))
        return quote + text.replace(quote, quote * 2) + quote if wanted or not draw(st.integers(0, 9)) else text

    names = draw(st.permutations([*NAMES, "other"])) if options["header"] and not draw(st.integers(0, 3)) else NAMES
    lines = [delimiter.join(field(name) for name in names)] if options["header"] and draw(st.integers(0, 9)) else []
    for _ in range(draw(st.integers(0, 3))):
        odd = draw(st.sets(st.sampled_from(names), max_size=draw(st.sampled_from([0, 0, 1]))))
        fields = [draw(st.sampled_from(ODD if name in odd else GOOD.get(name, ODD))) for name in names]
        fields += [draw(st.sampled_from(ODD))] * draw(st.sampled_from([0, 0, 1, 3])) if "surplus" in options else []
        lines.append(delimiter.join(map(field, fields[: None if draw(st.integers(0, 19)) else -1])))
        lines += ["#,1"] * draw(st.sampled_from([0, 0, 0, 1]))
    whole = (end.join(lines) + end * draw(st.integers(0, 1))).encode()
    if draw(st.integers(0, 4)):
        return whole
    at, byte = draw(st.integers(0, len(whole))), bytes([draw(st.integers(0, 255))])
    return whole[:at] + byte + whole[at + draw(st.integers(0, 1)) :]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[bytes], dict[str, Any]]:
    options = {
        "delimiter": draw(st.sampled_from([",", ",", ";", "\t", " ", "|"])), "quote": draw(st.sampled_from(['"', '"', "'", None])),
        "header": draw(st.booleans()), "null": draw(st.sampled_from([[""], [""], ["NULL"], ["NULL", ""], []])),
        "unknown": draw(st.sampled_from(["ignore", "reject"])),
    }  # fmt: skip
    options |= draw(st.sampled_from([{}, {}, {"comment": "#"}]))
    options |= draw(st.sampled_from([{}, {"surplus": "ignore"}])) if not options["header"] else {}
    return draw(st.lists(records(options), max_size=6)), options


def ordinarily(**options: Any) -> Any:
    with no_kernel():
        return Csv.model_validate(options).bind(KINDS)


def assert_same(payloads: list[bytes], options: dict[str, Any]) -> None:
    frame = raw_frame(payloads)
    quick, sure = Csv.model_validate(options).bind(KINDS)(frame), ordinarily(**options)(frame)

    none = pl.DataFrame(schema={"_row": pl.UInt32(), "reason": pl.String()})
    refused = none if quick.rejects is None else quick.rejects
    assert_frame_equal(refused, none if sure.rejects is None else sure.rejects)
    whole = [each.frame.filter(~pl.col("_row").is_in(refused["_row"].to_list())) for each in (quick, sure)]
    assert_frame_equal(*whole)


@pytest.mark.compares_kernel
@compared(400)
@given(batches())
@example(([b"1," * 13 + b"x"], {}))
@example(([b",1" + b"," * 12 + b"\xc3\xa4", b",1" + b"," * 12 + b"\xc3"], {}))
@example(([b',1,,,,,,,,,,,"' + b"x" * 131_072 + b'",', b',1,,,,,,,,,,,"' + b"x" * 131_073 + b'",'], {}))
@example(([b',1,,,,,,,,,,,"' + b'""' * 40 + b'",', b',1,,,,,,"2013-01-01",,,,,"a""",""""', b',1,,,,,,,,,,"""",,'], {}))
def test_rows_and_reasons_are_the_same_with_and_without_the_kernel(case: tuple[list[bytes], dict[str, Any]]) -> None:
    assert_same(*case)


def test_each_value_is_read_the_same_in_each_column() -> None:
    plain = {name: texts[0] for name, texts in GOOD.items()}
    values = {*ODD, *(text for texts in GOOD.values() for text in texts)}
    rows = [{**plain, name: form} for name in NAMES for text in sorted(values) for form in (text, '"' + text.replace('"', '""') + '"')]

    assert_same([",".join(row.values()).encode() for row in rows], {})
    assert_same([",".join(row.values()).encode() for row in rows], {"null": ["yes", "x"]})


def test_days_and_times_that_do_not_exist_are_refused_the_same_and_others_read_the_same() -> None:
    plain = {name: texts[0] for name, texts in GOOD.items()}
    days = [
        f"{year:04}-{month:02}-{day:02}"
        for year in (0, 1, 1900, 1970, 2000, 2004, 2013, 2100, 9999)
        for month in range(14)
        for day in (0, 1, 28, 29, 30, 31, 32)
    ]
    zones = ["", "Z", "z", "+00", "+0530", "+05:30", "-05:30", "-18:00", "+18:59", "+19:00", "+05:60", "+5", "+05:3", "+"]
    times = ["00:00", "23:59", "24:00", "00:60", "23:59:59", "00:00:60", *(f"12:34:56.{'123456789123'[:places]}" for places in range(11))]
    moments = [
        f"{day}T{time}{zone}" for day in ("0001-01-01", "1969-12-31", "2013-02-28", "9999-12-31") for time in times for zone in zones
    ]
    rows = [{**plain, "day": day} for day in days] + [{**plain, "at": text} for text in (*days, *moments)]
    payloads = [",".join(row.values()).encode() for row in rows]

    read = ordinarily()(raw_frame(payloads)).frame.filter(pl.col("_row") < len(days))
    assert read["day"].to_list() == [date.fromisoformat(day) for day in days if is_day(day)]
    assert_same(payloads, {})


def is_day(text: str) -> bool:
    with suppress(ValueError):
        return bool(date.fromisoformat(text))
    return False


def test_base64_with_a_wrong_character_anywhere_is_refused_the_same() -> None:
    plain = {name: texts[0] for name, texts in GOOD.items()}
    whole = [base64.b64encode(bytes(range(33, 33 + size))).decode() for size in (3, 5, 7, 27, 33, 52)]
    places = [(text, at, "!=z{") for text in whole for at in range(len(text))]
    # Every character in both halves of a block, and with every value of the bits that padding leaves unused.
    places += [(whole[-1], at, map(chr, set(range(256)) - set(b'",\r\n'))) for at in (3, 20)]
    places += [(text, len(text.rstrip("=")) - 1, string.ascii_letters + string.digits) for text in whole[:3]]
    wrong = [text[:at] + mark + text[at + 1 :] for text, at, marks in places for mark in marks]
    frame = ordinarily()(raw_frame([",".join({**plain, "body": text}.values()).encode() for text in [*whole, *wrong]]))
    assert frame.rejects is not None
    assert len(wrong) // 2 < frame.rejects.height < len(wrong)
    assert_same([",".join({**plain, "body": text}.values()).encode() for text in [*whole, *wrong]], {})


def test_a_long_field_beside_a_quoted_one_is_read_the_same() -> None:
    fields = [b'""', b"1", *[b""] * 10, b"x" * 131_072, b""]
    assert_same([b",".join([*fields[:-2], text, b""]) for text in (fields[-2], fields[-2] + b"x")], {})


@pytest.mark.parametrize("header", [False, True])
def test_plain_records_are_read_by_the_kernel_alone(header: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if native.KERNEL is None:
        return
    lines = [
        ",".join(json.dumps(value) if " " in value else value for value in (texts[at % len(texts)] for texts in GOOD.values()))
        for at in range(12)
    ]
    record = "\n".join([",".join(NAMES)] * header + lines).encode()
    expected = ordinarily(header=header)(raw_frame([record]))
    monkeypatch.setattr(Csv, "_rows", lambda *_: None)

    got = Csv(header=header).bind(KINDS)(raw_frame([record]))

    assert got.frame.height == 12
    assert_frame_equal(got.frame, expected.frame)


def test_invalid_arguments_to_the_kernel_are_refused() -> None:
    if native.KERNEL is None:
        return
    whole = (5, b"a", 0, False, 1, ())
    lines = native.KERNEL.plan((20, b"", 1, False, 1, ((21, b"", 1, False, 1, (whole,)),)))
    alone = native.KERNEL.plan((21, b"", 1, False, 1, (whole,)))
    for plan, places, words in [(lines, (1,), ()), (lines, (-2,), ()), (lines, (), ()), (alone, (0,), ()), (lines, (0,), (b"",) * 65)]:
        with pytest.raises(ValueError, match=r"place|field|null"):
            native.KERNEL.separated(plan, b"", (), 44, 34, None, places, words)


TABS = {"delimiter": "\t", "quote": None, "comment": "#", "null": "-", "surplus": "ignore"}


def decoded(text_records, schema, **options):
    given = batch([text.encode() for text in text_records])
    got = compile_chain(Csv(**options), parse_schema(schema), [], Resources(), ticks()).run(given, "s")
    with no_kernel():
        plain = compile_chain(Csv(**options), parse_schema(schema), [], Resources(), ticks())
    assert_frame_equal(got.frame, plain.run(given, "s").frame)
    return got.frame.select(list(schema)).rows(), got.settled.filter(pl.col("reason") != "").select("_row", "reason").rows()


def test_values_without_quotes_keep_the_quotes_they_have():
    rows, rejects = decoded(['"a\tb"', 'x"\t-', "ü\t"], {"a": "string", "b": "string?"}, delimiter="\t", quote=None, null="-")
    assert rows == [('"a', 'b"'), ('x"', None), ("ü", "")]
    assert rejects == []


def test_comments_are_left_out_and_a_record_of_comments_has_no_rows():
    rows, rejects = decoded(
        ["#Version: 1.0\n#Fields: a b\n1\tx\n#\r\n2\ty", "# nothing", "3\tz", "", "4"], {"a": "int64", "b": "string"}, **TABS
    )
    assert rows == [(1, "x"), (2, "y"), (3, "z")]
    assert rejects == [(1, "filtered"), (3, "empty_record"), (4, "csv_fields")]
    quoted, rejects = decoded(['1,"a\n# no comment"\n# a comment\n2,b'], {"a": "int64", "b": "string"}, comment="#")
    assert quoted == [(1, "a\n# no comment"), (2, "b")]
    assert rejects == []
    with_header, _ = decoded(["# made by hand\nb,a\nx,1"], {"a": "int64", "b": "string"}, comment="#", header=True)
    assert with_header == [(1, "x")]


def test_surplus_values_are_ignored_or_refuse_the_record():
    given = ['1 "x y" more "and more"', "2 y", '3 z "open', '4 z 5 6 "7"', "5"]
    schema = {"a": "int64", "b": "string"}
    rows, rejects = decoded(given, schema, delimiter=" ", surplus="ignore")
    assert rows == [(1, "x y"), (2, "y"), (4, "z")]
    assert rejects == [(2, "csv_syntax"), (4, "csv_fields")]
    rows, rejects = decoded(given, schema, delimiter=" ")
    assert rows == [(2, "y")]
    assert [row for row, _ in rejects] == [0, 2, 3, 4]


def test_the_newer_options_are_recorded_only_where_they_are_used():
    assert set(Csv().model_dump()) & {"comment", "surplus"} == set()
    used = Csv(**TABS)
    assert Csv.model_validate(used.model_dump(mode="json")) == used
    with pytest.raises(ValidationError, match="as many values as the header"):
        Csv(header=True, surplus="ignore")
    with pytest.raises(ValidationError, match="cannot begin a line that has text"):
        Csv(comment="\n")
