import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import avro_file
from stream.avro_file import Block
from stream.sink.avro import BLOCK_ROWS, avro, misfit

NOON = datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=UTC)
EVERY = pl.DataFrame(
    {
        "text": ["ä\0", "", None],
        "flag": [True, False, None],
        "tiny": pl.Series([-128, 127, None], dtype=pl.Int8),
        "ushort": pl.Series([2**16 - 1, 0, None], dtype=pl.UInt16),
        "uint": pl.Series([2**32 - 1, 0, None], dtype=pl.UInt32),
        "big": pl.Series([-(2**63), 2**63 - 1, None], dtype=pl.Int64),
        "ubig": pl.Series([2**64 - 1, 2**63, None], dtype=pl.UInt64),
        "huge": pl.Series([2**100, -1, None], dtype=pl.Int128),
        "single": pl.Series([1.5, -0.0, None], dtype=pl.Float32),
        "real": [0.1, float("inf"), None],
        "money": pl.Series([Decimal("1.28"), Decimal("-2.56"), None], dtype=pl.Decimal(10, 2)),
        "raw": [b"\x00\xff", b"", None],
        "day": [date(1969, 12, 31), date(9999, 12, 31), None],
        "at": pl.Series([NOON, datetime(1969, 1, 1, tzinfo=UTC), None], dtype=pl.Datetime("us", "UTC")),
        "arrived": pl.Series([NOON, None, None], dtype=pl.Datetime("ms", "UTC")),
        "local": pl.Series([NOON.replace(tzinfo=None), None, None], dtype=pl.Datetime("us")),
        "clock": [time(1, 2, 3, 4), time(0), None],
        "took": pl.Series([timedelta(seconds=1), timedelta(days=-1), None], dtype=pl.Duration("ms")),
        "kind": pl.Series(["x", "y", None], dtype=pl.Enum(["y", "x"])),
        "list": [[1, None], [], None],
        "fixed": pl.Series([[1, 2], [3, None], None], dtype=pl.Array(pl.Int16, 2)),
        "object": [{"a": 1, "deep": [{"money": Decimal("1.5"), "t": time(1)}]}, {"a": None, "deep": None}, None],
        "nothing": pl.Series([None, None, None], dtype=pl.Null),
    }
)


def read(body):
    return list(fastavro.reader(io.BytesIO(body)))


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
def test_an_independent_reader_finds_every_type(codec):
    body = avro(EVERY, codec, None)
    if codec in {"snappy", "zstandard"}:  # fastavro reads these only with other libraries
        found = avro_file.read(body)
        assert found.codec == codec
        body = avro_file.written(found.schema, "null", None, found.blocks)
    first, second, third = read(body)
    assert first == {
        "text": "ä\0",
        "flag": True,
        "tiny": -128,
        "ushort": 2**16 - 1,
        "uint": 2**32 - 1,
        "big": -(2**63),
        "ubig": Decimal(2**64 - 1),
        "huge": str(2**100),
        "single": 1.5,
        "real": 0.1,
        "money": Decimal("1.28"),
        "raw": b"\x00\xff",
        "day": date(1969, 12, 31),
        "at": NOON,
        "arrived": NOON.replace(microsecond=0),
        "local": NOON.replace(tzinfo=None),
        "clock": "01:02:03.000004000",
        "took": 1000,
        "kind": "x",
        "list": [1, None],
        "fixed": [1, 2],
        "object": {"a": 1, "deep": [{"money": Decimal("1.5"), "t": "01:00:00.000000000"}]},
        "nothing": None,
    }
    assert (second["ubig"], second["money"], second["took"], second["object"]) == (
        2**63,
        Decimal("-2.56"),
        -86_400_000,
        {"a": None, "deep": None},
    )
    assert set(third.values()) == {None}


@given(
    st.lists(st.none() | st.decimals(-(10**30), 10**30, places=7), min_size=1), st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=1)
)
@settings(max_examples=150, deadline=None)
def test_decimals_and_unsigned_numbers_are_exact(decimals, numbers):
    column = pl.Series("d", decimals, dtype=pl.Decimal(38, 7))
    assert [row["d"] for row in read(avro(column.to_frame(), "null", None))] == decimals
    nested = pl.DataFrame({"l": pl.Series([numbers, None, []], dtype=pl.List(pl.UInt64))})
    assert [row["l"] for row in read(avro(nested, "null", None))] == [numbers, None, []]


@pytest.mark.parametrize(("digits", "width"), [(1, 4), (9, 4), (10, 8), (18, 8), (19, 16), (38, 16)])
def test_decimals_are_as_wide_as_clickhouse_takes_them_and_exact_at_both_ends(digits, width):
    most = Decimal(f"{'9' * (digits - 1)}.9")
    values = [most, most.copy_negate(), Decimal("-0.1"), None, Decimal("0.0")]
    body = avro(pl.DataFrame({"d": pl.Series(values, dtype=pl.Decimal(digits, 1))}), "null", None)
    assert [row["d"] for row in read(body)] == values
    (block,) = avro_file.read(body).blocks
    assert tuple(block.data[:2]) == (2, 2 * width), "the branch of the union and the length, both doubled"


def test_fields_may_be_null_and_are_so_by_default_so_that_columns_can_be_added():
    older = avro(pl.DataFrame({"a": [1]}), "null", None)
    newer = avro_file.read(avro(pl.DataFrame({"a": [1], "b": ["x"]}), "null", None)).schema
    assert list(fastavro.reader(io.BytesIO(older), fastavro.parse_schema(newer))) == [{"a": 1, "b": None}]


def test_rows_are_in_blocks_that_end_with_a_digest_of_the_content():
    frame = pl.DataFrame({"n": range(BLOCK_ROWS + 1)})
    body, other = avro(frame, "deflate", 5), avro(frame.reverse(), "deflate", 5)
    blocks = list(fastavro.block_reader(io.BytesIO(body)))
    assert [block.num_records for block in blocks] == [BLOCK_ROWS, 1]
    assert [row["n"] for block in blocks for row in block] == list(range(BLOCK_ROWS + 1))
    assert body[-16:] != other[-16:]
    assert body.count(body[-16:]) == 3


def test_equal_rows_give_equal_bytes_however_they_lie_in_memory():
    whole = pl.concat([EVERY] * 50)
    pieces = pl.concat([whole.slice(start, 7) for start in range(0, whole.height, 7)], rechunk=False)
    assert avro(pieces, "deflate", 5) == avro(whole, "deflate", 5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a-b", pl.Int8()),
        ("1a", pl.Int8()),
        ("é", pl.Int8()),
        ("a", pl.Struct({"x y": pl.Int8()})),
        ("a", pl.List(pl.Struct({"": pl.Int8()}))),
    ],
)
def test_names_that_avro_does_not_allow_are_named(name, kind):
    said, hint = misfit(name, kind)
    assert "not allowed in Avro" in said
    assert "rename" in hint
    assert misfit("_sequence", pl.Struct({"x1": pl.Int8()})) is None


@pytest.mark.parametrize("cut", [0, 3, 40, -1, -17, -40])
def test_a_file_that_is_cut_off_is_reported(cut):
    body = avro(EVERY.select("text"), "null", None)
    with pytest.raises(ValueError, match=r"cut off|does not begin|sync marker"):
        avro_file.read(body[:cut])


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_blocks_survive_every_codec(codec, blocks):
    given_blocks = [Block(1, block) for block in blocks]
    found = avro_file.read(avro_file.written({"type": "bytes"}, codec, None, given_blocks))
    assert (found.schema, found.codec, list(found.blocks)) == ({"type": "bytes"}, codec, given_blocks)
