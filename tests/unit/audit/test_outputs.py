"""Every format that a sink writes is read back, by its key and, for separated values, by how the sink writes them."""

from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit.outputs import DAMAGE, rows_of, typed
from stream.batch import LINEAGE
from stream.errors import StreamError
from stream.sink.encode import COMPRESSIONS, Format
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.worker.opening.separations import separation
from tests.unit.audit.test_criteria import listed, rows_in
from tests.unit.sink.frames import rows

FRAME = rows(
    pl.DataFrame(
        {
            "n": [1, None, 3],
            "name": ["a,b", "", None],
            "at": pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None, datetime(1969, 1, 1, tzinfo=UTC)], dtype=pl.Datetime("us", "UTC")),
            "price": pl.Series([Decimal("1.50"), None, Decimal("-2.25")], dtype=pl.Decimal(10, 2)),
        }
    )
)
WRITTEN = {
    "rfc": {},
    "tabs": {"delimiter": "\t", "header": False},
    "crlf": {"line_end": "crlf", "quoting": "always", "bom": True},
    "escaped": {"quote": None, "escape": "\\", "delimiter": "|"},
    "both": {"escape": "\\", "null": "\\N", "header": False},
    "word": {"null": "NULL", "quote": "'", "line_end": "crlf"},
}


def written(frame, **options):
    config = ObjectsSinkConfig.model_validate({"url": "memory:", **options})
    (file,) = ObjectsSink(config).encode(frame, "u").files
    return file, separation(config)


@pytest.mark.parametrize(("form", "codec"), [(form, codec) for form, codecs in COMPRESSIONS.items() for codec in codecs])
def test_each_format_and_codec_is_read_by_its_key(form, codec):
    file, how = written(FRAME, format=form, compression=codec)
    read = rows_of(file.key, file.body, how).collect()
    assert read.columns == [*FRAME.columns[:4], *LINEAGE]
    assert read["name"].to_list() == FRAME["name"].to_list()
    assert read["_sequence"].to_list() == FRAME["_sequence"].to_list()
    if form in {Format.PARQUET, Format.AVRO, Format.ARROW}:
        assert read["at"].to_list() == FRAME["at"].to_list()
        assert read["price"].to_list() == FRAME["price"].to_list()


TEXTS = st.text(st.sampled_from("ab,\t|'\"\\\r\n N\ufeff\0é😀") | st.characters(exclude_categories=["Cs"]), max_size=6)


@pytest.mark.parametrize("name", WRITTEN)
@given(st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS | st.sampled_from(["", "\\N", "NULL", "\\."])), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_separated_values_are_read_as_they_were_however_they_are_written(name, values):
    frame = rows(pl.DataFrame(values, schema={"first": pl.String, "other": pl.String}, orient="row"))
    file, how = written(frame, format="csv", csv=WRITTEN[name])
    read = rows_of(file.key, file.body, how).collect()
    assert read.rows() == frame.select(pl.col(frame.columns[:2]), *(pl.col(each).cast(pl.String) for each in LINEAGE[:3]),
                                       pl.col("_arrival").dt.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z")).rows()  # fmt: skip


def test_without_a_header_columns_are_numbered_and_those_of_lineage_have_their_names():
    file, how = written(FRAME, format="csv", csv={"header": False})
    assert rows_of(file.key, file.body, how).collect_schema().names() == ["column_1", "column_2", "column_3", "column_4", *LINEAGE]
    file, how = written(FRAME, format="csv", csv={"header": False}, lineage=False)
    assert rows_of(file.key, file.body, how).collect_schema().names()[-1] == "column_4"


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (
            "avro",
            {
                "n=3": [2],
                "at=2026-01-01T00:00:00Z": [0],
                "price=-2.25": [2],
                "name=a,b": [0],
                "n=3 price=-2.25": [2],
                "n=3 name=": [],
                "n=3 other=1": None,
                "other=1": None,
            },
        ),
        ("arrow", {"n=3": [2], "at=2026-01-01T00:00:00Z": [0], "price=-2.25": [2], "name=": [1], "other=1": None}),
        ("csv", {"n=3": [2], "at=2026-01-01T00:00:00.000000+00:00": [0], "price=-2.25": [2], "name=": [1], "other=1": None}),
    ],
)
def test_values_are_found_in_every_format(form, found):
    file, how = written(FRAME, format=form)
    assert {text: rows_in(*listed(file.key, file.body), text, how) for text in found} == found


@pytest.mark.parametrize("form", list(Format))
def test_a_damaged_file_is_reported(form):
    file, how = written(FRAME, format=form)
    for body in (file.body[: len(file.body) // 2], b"", b"no such file"):
        with pytest.raises(StreamError, match="was changed after it was written"):
            rows_in(listed(file.key, file.body)[0], body, "n=1", how)
        with pytest.raises(StreamError, match="cannot be read"):
            rows_in(*listed(file.key, body), "n=1", how)


FILES = {(form, codec): written(FRAME, format=form, compression=codec) for form, codecs in COMPRESSIONS.items() for codec in codecs}
FILES |= {(Format.CSV, name): written(FRAME, format="csv", compression="none", csv=csv) for name, csv in WRITTEN.items()}


@pytest.mark.parametrize("which", [each for each in FILES if each[0] is not Format.PARQUET], ids="-".join)
@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_any_damage_is_reported_or_harmless(which, at, byte, end):
    file, how = FILES[which]
    body = bytearray(file.body)
    body[at % len(body)] = byte
    for damaged in (bytes(body), file.body[: end % len(body)]):
        with suppress(StreamError):
            rows_in(*listed(file.key, damaged), "n=3", how)


TYPED = pl.DataFrame(
    {
        "small": pl.Series([1, None, -3], dtype=pl.Int16),
        "large": pl.Series([2**63, 0, None], dtype=pl.UInt64),
        "share": pl.Series([0.1, float("inf"), None], dtype=pl.Float64),
        "price": pl.Series([Decimal("1.50"), None, Decimal("-2.25")], dtype=pl.Decimal(10, 2)),
        "yes": [True, False, None],
        "day": [date(2026, 1, 31), None, date(1969, 12, 31)],
        "at": pl.Series(
            [datetime(2026, 1, 1, tzinfo=UTC), None, datetime(1969, 1, 1, 0, 0, 0, 123456, UTC)], dtype=pl.Datetime("us", "UTC")
        ),
        "local": pl.Series([0, None, 1_767_268_800_123], dtype=pl.Datetime("ms")),
        "time": [time(12, 0, 1), None, time(0, 0, 0, 1)],
        "bytes": [b"\xff\x00", b"", None],
        "name": ["2026-01-01", "", None],
        "none": pl.Series([None, None, None], dtype=pl.Int64),
    }
)


@pytest.mark.parametrize("form", [*({"csv": options} for options in WRITTEN.values()), {"csv": {"times": "sql"}}, {"format": "ndjson"}])
@pytest.mark.parametrize("lineage", [True, False])
def test_text_gets_its_names_and_types_back(form, lineage):
    config = ObjectsSinkConfig.model_validate({"url": "file:x", "format": "csv", "lineage": lineage} | form)
    frame = TYPED if config.format is Format.CSV else TYPED.with_columns(share=pl.Series([0.1, 0.5, None]))
    frame = rows(frame)
    names = config.columns(frame.schema)
    (file,) = ObjectsSink(config).encode(frame, "unit").files
    read = rows_of(file.key, file.body, separation(config))
    found = typed(file.key, read, {name: frame.schema[name] for name in names}).collect()
    assert found.equals(frame.select(names))
    assert found.schema == frame.select(names).schema


def test_a_value_that_is_not_of_its_type_is_damage_and_no_null():
    text = pl.LazyFrame({"n": ["1", "x"], "at": ["2026-01-01T00:00:00.000000+00:00", "yesterday"]})
    for name, kind in (("n", pl.Int64()), ("at", pl.Datetime("us", "UTC"))):
        with pytest.raises(DAMAGE):
            typed("a.csv", text.select(name), {name: kind}).collect()
    assert typed("a.parquet", text, {"n": pl.Int64()}) is text
