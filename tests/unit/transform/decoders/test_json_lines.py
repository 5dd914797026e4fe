import pytest

from stream.batch import Outcome
from stream.transform.decoders.json_lines import JsonLines
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

SCHEMA = parse_schema({"a": "int64", "b": "timestamp?"})


def run(*records, **options):
    return compile_chain(JsonLines(**options), SCHEMA, [], Resources(), ticks()).run(batch(records), "s")


def test_lines_become_rows_of_their_record():
    got = run(b'{"a":1}\n\n  \r\n{"a":2}\r\n{"a":3}', b'{"a":4}\n')
    assert got.frame.select("_row", "a").rows() == [(0, 1), (0, 2), (0, 3), (1, 4)]
    assert got.settled.is_empty()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "empty_record"),
        (b" \n\r\n", "empty_record"),
        (b'{"a":1}\n{"a":"x"}\n{"a":', "wrong_type:a"),
        (b'{"a":1}\n{"a":\n{"a":"x"}', "json_syntax"),
        (b'{"a":1,"b":"no"}\n[]', "wrong_type:b"),
        (b'{"a":1}{"a":2}', "json_syntax"),
        (b'{"a":1}\n{}', "missing_field:a"),
        (b'{"a":1}\n\xff', "invalid_utf8"),
    ],
)
def test_a_record_is_rejected_as_a_whole_for_its_first_invalid_line(record, reason):
    got = run(b'{"a":1}', record, b'{"a":2}\n{"a":3}')
    assert got.frame.select("_row", "a").rows() == [(0, 1), (2, 2), (2, 3)]
    assert got.settled.rows() == [(1, Outcome.DEAD_LETTERED, "decode", reason)]


def test_more_lines_than_fit_one_window_are_read():
    got = run(b'{"a":1}\n' * 10_000 + b'{"a":"x"}\n', b'{"a":2}\n' * 10_000)
    assert got.frame["a"].to_list() == [2] * 10_000
    assert got.settled["reason"].to_list() == ["wrong_type:a"]


def test_unknown_fields_are_rejected_or_captured():
    assert run(b'{"a":1}\n{"a":1,"z":2}', unknown="reject").settled["reason"].to_list() == ["unknown_field"]
    assert run(b'{"a":1,"z":2}', unknown="capture").frame["_extra"].to_list() == ['{"z":2}']
