import pytest
from pydantic import ValidationError

from stream.batch import Outcome
from stream.transform.decoders.csv import Csv
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

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
        (b"1,x,y\nq,x,y", {}, "wrong_type:a"),
        (b"1,NULL,y", {"null": "NULL"}, "missing_field:b"),
        (b"a,b\n1,x", {"header": True}, "missing_field:c"),
        (b"a,b,c,b\n1,x,y,z", {"header": True}, "duplicate_field"),
        (b"a,b,c,d\n1,x,y,z", {"header": True, "unknown": "reject"}, "unknown_field"),
        (b"a,b,c\n1,x", {"header": True}, "csv_fields"),
        (b'1,"' + b"x" * 140_000 + b'",y', {}, "csv_syntax"),
    ],
)
def test_a_record_with_a_bad_line_is_rejected_whole(record, options, reason):
    good = b"a,b,c\n1,x,y" if options.get("header") else b"1,x,y"
    got = run(good, record, good, **options)
    assert got.frame["_row"].to_list() == [0, 2]
    assert got.settled.rows() == [(1, Outcome.DEAD_LETTERED, "decode", reason)]


def test_a_header_names_the_columns_of_its_record():
    got = run(b"c,b,z,a\ny,x,?,1", b"a,b,c\n2,x,y\n", b"b,a,c", header=True)
    assert got.frame.select("_row", "a", "b", "c").rows() == [(0, 1, "x", "y"), (1, 2, "x", "y")]
    assert got.settled.rows() == [(2, Outcome.FILTERED, "decode", "filtered")], "a header alone holds no rows"


def test_other_characters_and_words():
    got = run(b"1;'a;b';-\n-;c;d", delimiter=";", quote="'", null=["-"])
    assert got.frame.select("a", "b", "c").rows() == [(1, "a;b", None), (None, "c", "d")]


@pytest.mark.parametrize(
    "options", [{"delimiter": ",,"}, {"delimiter": "\n"}, {"delimiter": "é"}, {"quote": ","}, {"unknown": "capture"}, {"quote": ""}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        Csv.model_validate(options)


def test_a_schema_of_plain_values_is_needed():
    with pytest.raises(SchemaMismatch, match="needs a schema"):
        Csv().output(None)
    with pytest.raises(SchemaMismatch, match="cannot be read as list"):
        Csv().output(parse_schema({"a": "list<int64>"}))
