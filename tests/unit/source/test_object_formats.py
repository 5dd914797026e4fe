import csv
import gzip
import io
import json
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import Halted
from stream.source import object_formats
from stream.source.object_formats import Layout, ObjectCodec, ObjectFormat, chunks

NDJSON = Layout(ObjectFormat.NDJSON)


def read(body, layout=NDJSON, name="x", behind=0, size=64):
    return [record for chunk in chunks(layout, io.BytesIO(body), name, behind, size) for record in chunk]


def test_a_record_is_a_line_with_its_number_whatever_the_line_ending():
    assert read(b"a\nb\r\n\n  \nc") == [(1, b"a"), (2, b"b"), (5, b"c")]
    assert read(b"a\n") == [(1, b"a")]
    assert read(b"") == []


@given(st.lists(st.binary(max_size=40).map(lambda body: body.replace(b"\n", b"")), max_size=30), st.integers(0, 30), st.integers(1, 50))
def test_resuming_gives_the_same_as_reading_through(lines, behind, size):
    body = b"\n".join(lines)
    whole = read(body, size=size)
    assert read(body, behind=behind, size=size) == [record for record in whole if record[0] > behind]
    assert [text for _, text in whole] == [line.removesuffix(b"\r") for line in lines if line.removesuffix(b"\r").strip()]


def test_line_ends_inside_quotes_are_kept():
    assert read(b'1,"a\r\nb\nc"\r\n2,d\r\n', Layout(ObjectFormat.CSV)) == [(1, b'1,"a\r\nb\nc"'), (4, b"2,d")]


def test_a_byte_order_mark_belongs_to_no_record():
    mark = b"\xef\xbb\xbf"
    assert read(mark + b"a\n" + mark + b"b") == [(1, b"a"), (2, mark + b"b")]
    assert read(mark) == []
    header = Layout(ObjectFormat.CSV, header=True)
    assert read(mark + b"id,name\r\n1,x\r\n", header) == [(2, b"id,name\n1,x")]
    assert read(mark + b'"id",name\n1,x\n', header) == [(2, b'"id",name\n1,x')]


def test_compression_follows_the_name_or_the_option():
    packed = gzip.compress(b"a\n") + gzip.compress(b"b\n")
    assert read(packed, name="x.gz") == [(1, b"a"), (2, b"b")]
    assert read(packed, Layout(ObjectFormat.NDJSON, ObjectCodec.GZIP)) == [(1, b"a"), (2, b"b")]
    assert read(b"a\n", Layout(ObjectFormat.NDJSON, ObjectCodec.NONE), name="x.gz") == [(1, b"a")]


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"a\n" * 5000, mtime=0)[:-20]], ids=["other", "cut"])
def test_an_object_in_another_format_is_named(body):
    with pytest.raises(Halted, match=r"the object x\.gz cannot be read as ndjson, compression gzip"):
        read(body, name="x.gz")


def test_a_line_without_an_end_halts_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(object_formats, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(object_formats, "READ_BYTES", 50)
    with pytest.raises(Halted, match="line 2"):
        read(b"a\n" + b"x" * 500)
    with pytest.raises(Halted, match="line 1"):
        read(b'"' + b"x\n" * 500, Layout(ObjectFormat.CSV))


def test_quoted_values_may_contain_line_ends_and_each_record_gets_the_header():
    body = b'id,text\n1,"a\nb"\n\n2,c\n'
    assert read(body, Layout(ObjectFormat.CSV, header=True)) == [(2, b'id,text\n1,"a\nb"'), (5, b"id,text\n2,c")]
    assert read(body, Layout(ObjectFormat.CSV, header=True), behind=2) == [(5, b"id,text\n2,c")]


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
@given(
    st.lists(st.lists(st.sampled_from(["a", "Q", "QQ", "D", "\n", "\r\n", "5Q pipe", "QaQ"]).map(str), max_size=4).map("".join), max_size=6)
)
def test_records_of_separated_values_end_where_the_csv_module_says(delimiter, quote, fields):
    lines = [field.replace("Q", quote).replace("D", delimiter) for field in fields]
    plain = [line for line in lines if "\n" not in line and delimiter not in line]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quotechar=quote, lineterminator="\r\n")
    for line in lines:
        writer.writerow([line, "x", line])
        for other in plain:  # quotes that nobody doubled, further on in a value
            out.write(f"x{other}\r\n")
    body = out.getvalue()
    wanted = list(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, quotechar=quote, strict=True))
    found = read(body.encode(), Layout(ObjectFormat.CSV, quote=quote, delimiter=delimiter))
    assert [list(csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter, quotechar=quote)) for _, text in found] == [
        [row] for row in wanted
    ]


def test_a_quote_inside_a_value_does_not_swallow_the_following_lines():
    body = b'id,text\n1,5" pipe\n2,b\n3,"a\nb"\n4,"x"y\n5,c\n'
    found = [text.removeprefix(b"id,text\n") for _, text in read(body, Layout(ObjectFormat.CSV, header=True))]
    assert found == [b'1,5" pipe', b"2,b", b'3,"a\nb"', b'4,"x"y', b"5,c"]


def parquet(frame, **options):
    out = io.BytesIO()
    frame.write_parquet(out, **options)
    return out.getvalue()


def test_binary_values_in_parquet_become_base64_at_every_depth():
    frame = pl.DataFrame(
        {"b": [b"\xff\x00", None], "l": [[b"x", None], None], "o": [{"b": b"q", "n": 1}, None], "s": ["a", "b"]},
        schema_overrides={"o": pl.Struct({"b": pl.Binary, "n": pl.Int64})},
    )
    found = read(parquet(frame), Layout(ObjectFormat.PARQUET))
    assert [json.loads(body) for _, body in found] == [
        {"b": "/wA=", "l": ["eA==", None], "o": {"b": "cQ==", "n": 1}, "s": "a"},
        {"b": None, "l": None, "o": None, "s": "b"},
    ]


def test_parquet_rows_become_json_or_the_value_of_one_column():
    frame = pl.DataFrame({"id": [1, 2, 3, 4, 5], "raw": [b"a", b"b", None, b"d", b"e"]})
    found = read(parquet(frame.select("id"), row_group_size=2), Layout(ObjectFormat.PARQUET), behind=1)
    assert [(number, json.loads(text)) for number, text in found] == [(n, {"id": n}) for n in (2, 3, 4, 5)]
    column = Layout(ObjectFormat.PARQUET, column="raw")
    assert read(parquet(frame, row_group_size=2), column, behind=2) == [(3, b""), (4, b"d"), (5, b"e")]
    with pytest.raises(Halted, match=r"the columns id, raw.*source\.s3\.column"):
        read(parquet(frame), Layout(ObjectFormat.PARQUET, column="row"))
    with pytest.raises(Halted, match="cannot be read as parquet"):
        read(b"PAR1....", Layout(ObjectFormat.PARQUET))


def arrow(**columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_decimals_too_wide_for_polars_become_text():
    wide = pa.array([Decimal("-" + "9" * 50 + ".5"), None, Decimal("1e-9")], pa.decimal256(60, 9))
    body = arrow(wide=wide, few=pa.array([Decimal("1.5"), None, Decimal(0)], pa.decimal128(38, 9)))
    rows = [json.loads(text) for _, text in read(body, Layout(ObjectFormat.PARQUET))]
    assert [row["wide"] for row in rows] == ["-" + "9" * 50 + ".500000000", None, "0.000000001"]
    assert [row["few"] for row in rows] == ["1.500000000", None, "0.000000000"]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (pa.list_(pa.decimal256(60, 0)), [Decimal("9" * 60)], ["9" * 60]),
        (pa.struct({"d": pa.decimal256(60, 0)}), {"d": Decimal("9" * 60)}, {"d": "9" * 60}),
        (pa.map_(pa.string(), pa.decimal256(40, 0)), [("k", Decimal("-1"))], [{"key": "k", "value": "-1"}]),
    ],
)
def test_nested_decimals_too_wide_for_polars_become_text_too(kind, value, shown):
    found = read(arrow(inner=pa.array([value, None], kind)), Layout(ObjectFormat.PARQUET))
    assert [json.loads(text)["inner"] for _, text in found] == [shown, None]
