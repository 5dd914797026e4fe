import io
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stream.batch import ARRIVAL, LINEAGE, ROW
from stream.contracts import RefusingSink, Transformed
from stream.sink.layouts import Column
from stream.sink.partition import SinkMismatch
from stream.sink.redshift import RedshiftSink, RedshiftSinkConfig
from stream.sink.redshift_types import LINE, layout_of, staged_column
from stream.sink.refusals import accepted
from tests.contract.warehouse import config
from tests.frames import rows

EVERY = {
    "flag": pl.Boolean(),
    "tiny": pl.Int8(),
    "small": pl.Int16(),
    "mid": pl.Int32(),
    "big": pl.Int64(),
    "u8": pl.UInt8(),
    "u16": pl.UInt16(),
    "u32": pl.UInt32(),
    "u64": pl.UInt64(),
    "f32": pl.Float32(),
    "f64": pl.Float64(),
    "word": pl.String(),
    "cat": pl.Categorical(),
    "raw": pl.Binary(),
    "day": pl.Date(),
    "at": pl.Datetime("us", "UTC"),
    "price": pl.Decimal(10, 2),
    "items": pl.List(pl.Int64()),
    "thing": pl.Struct({"a": pl.String(), "b": pl.List(pl.Float64())}),
    "nothing": pl.Null(),
}


def test_every_type_has_a_redshift_type():
    layout = layout_of(EVERY, {})
    assert {column.name: column.type for column in layout.columns} == {
        "flag": "boolean",
        "tiny": "integer",
        "small": "integer",
        "mid": "integer",
        "big": "bigint",
        "u8": "integer",
        "u16": "integer",
        "u32": "bigint",
        "u64": "decimal(20,0)",
        "f32": "real",
        "f64": "double precision",
        "word": "varchar(65535)",
        "cat": "varchar(65535)",
        "raw": "varbyte(1024000)",
        "day": "date",
        "at": "timestamp",
        "price": "decimal(10,2)",
        "items": "super",
        "thing": "super",
        "nothing": "varchar(65535)",
    }
    assert any(column.staged == "super" for column in layout.columns)


def test_values_are_the_same_in_the_staged_file():
    columns = {
        "tiny": pl.Series([-128, 127], dtype=pl.Int8),
        "u64": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
        "at": pl.Series([datetime(2026, 1, 1, 12, tzinfo=UTC), None], dtype=pl.Datetime("ms", "Europe/Berlin")),
        "price": pl.Series([Decimal("1.25"), None], dtype=pl.Decimal(10, 2)),
        "day": pl.Series([date(2026, 1, 1), None]),
        "thing": pl.Series([{"a": "x"}, None]),
    }
    frame = pl.DataFrame(columns)
    staged = frame.select(staged_column(name, dtype) for name, dtype in frame.schema.items())
    assert staged.schema["tiny"] == pl.Int32()
    assert staged["u64"].to_list() == [Decimal(2**64 - 1), None]
    assert staged["at"].to_list() == [datetime(2026, 1, 1, 12), None]  # noqa: DTZ001 - UTC without a zone is what COPY takes
    assert staged.select("price", "day", "thing").equals(frame.select("price", "day", "thing"))


@pytest.mark.parametrize(
    ("dtype", "wanted", "type_"),
    [
        (pl.String(), "varchar(20)", "varchar(20)"),
        (pl.String(), "super", "super"),
        (pl.Binary(), "varbyte(64)", "varbyte(64)"),
        (pl.Datetime("us", "UTC"), "timestamptz", "timestamptz"),
        (pl.Int16(), "smallint", "smallint"),
        (pl.Int32(), "bigint", "bigint"),
        (pl.Int64(), "bigint", "bigint"),
        (pl.String(), "varchar(1)", "varchar(1)"),
        (pl.String(), "varchar(65535)", "varchar(65535)"),
        (pl.Binary(), "varbyte(1024000)", "varbyte(1024000)"),
    ],
)
def test_types_can_be_overridden(dtype, wanted, type_):
    (column,) = layout_of({"x": dtype}, {"x": wanted}).columns
    assert column.type == type_


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (pl.Int64(), "smallint"),
        (pl.UInt16(), "smallint"),
        (pl.String(), "integer"),
        (pl.String(), "varchar(0)"),
        (pl.String(), "varchar(65536)"),
        (pl.String(), "varchar(20); DROP TABLE x"),
        (pl.Int64(), "super"),
        (pl.Float64(), "real"),
        (pl.Datetime("us", "UTC"), "integer"),
        (pl.String(), "timestamptz"),
        (pl.Binary(), "varbyte(1024001)"),
    ],
)
def test_an_override_that_would_lose_values_is_refused(dtype, wanted):
    with pytest.raises(SinkMismatch, match="cannot be"):
        layout_of({"x": dtype}, {"x": wanted})


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"a;b": pl.Int64()}, "cannot name"),
        ({'a"': pl.Int64()}, "cannot name"),
        ({"größe": pl.Int64()}, "cannot name"),
        ({"xmin": pl.Int64()}, "system column"),
        ({"A": pl.Int64(), "a": pl.Int64()}, "one column"),
        ({"x": pl.Duration()}, "no type in Redshift"),
        ({"x": pl.Time()}, "no type in Redshift"),
        ({"x": pl.Datetime("ns")}, "no type in Redshift"),
        ({"x": pl.Int128()}, "no type in Redshift"),
        ({"x": pl.List(pl.Binary())}, "cannot become SUPER"),
        ({"x": pl.List(pl.Struct([]))}, "without fields"),
        ({f"c{n}": pl.Int64() for n in range(1601)}, "1601 columns"),
    ],
)
def test_types_without_a_redshift_type_are_refused_with_a_reason(schema, words):
    with pytest.raises(SinkMismatch, match=words):
        layout_of(schema, {})


SCHEMA = pl.Schema(
    {**dict.fromkeys(LINEAGE, pl.String()), ARRIVAL: pl.Datetime("ms", "UTC"), ROW: pl.UInt32(), "n": pl.Int64(), "x": pl.Float64()}
)


def test_a_single_key_needs_no_list():
    assert config(mode="upsert", keys="n").keys == ("n",)


def test_keys_must_be_existing_comparable_columns():
    config(mode="upsert", keys=["n"]).check(SCHEMA)
    for key, words in (("gone", "no column"), ("x", "cannot be a key"), ("_shard", "no column")):
        with pytest.raises(SinkMismatch, match=words) as refusal:
            config(mode="upsert", keys=["n", key]).check(SCHEMA)
        assert refusal.value.path == ("keys", 1)


def test_the_deletes_option_must_name_a_boolean_column_that_is_not_a_key():
    schema = pl.Schema({**SCHEMA, "gone": pl.Boolean()})
    config(mode="upsert", keys=["n"], deletes="gone").check(schema)
    for name, words in (("missing", "no column 'missing'"), ("x", "not a boolean column"), ("_shard", "no column '_shard'")):
        with pytest.raises(SinkMismatch, match=words) as refusal:
            config(mode="upsert", keys=["n"], deletes=name).check(schema)
        assert refusal.value.path == ("deletes",)
    with pytest.raises(SinkMismatch, match="is a key"):
        config(mode="upsert", keys=["gone"], deletes="gone").check(schema)


@pytest.mark.parametrize("kind", [pl.Int16(), pl.UInt64(), pl.Decimal(12, 2), pl.Date(), pl.Datetime("us", "UTC"), pl.Datetime("ms")])
def test_a_version_is_of_a_type_with_an_order(kind):
    settings = config(mode="upsert", keys=["n"], version="Changed")
    schema = pl.Schema({**SCHEMA, "Changed": kind})
    settings.check(schema)
    assert [column.name for column in settings.layout(schema).columns if column.version] == ["changed"]


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("missing", "there is no column 'missing'", "columns here: n"),
        ("_arrival", "there is no column '_arrival'", "columns here: n"),
        ("word", "column 'word' of type string cannot be a version", "`cast` it in a stage"),
        ("real", "column 'real' of type float64 cannot be a version", "take whole numbers, decimals, dates or timestamps"),
        ("gone", "column 'gone' of type bool cannot be a version", "take whole numbers"),
        ("tags", "cannot be a version", "take whole numbers"),
        ("n", "column 'n' is a key", "all rows of a key would have one version"),
    ],
)
def test_a_version_that_says_nothing_of_an_order_is_refused(name, words, hint):
    others = {"word": pl.String(), "real": pl.Float64(), "gone": pl.Boolean(), "tags": pl.List(pl.Int64())}
    with pytest.raises(SinkMismatch, match=words) as refusal:
        config(mode="upsert", keys=["n"], version=name).check(pl.Schema({**SCHEMA, **others}))
    assert refusal.value.path == ("version",)
    assert hint in refusal.value.hint


STORED_LOGIN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:x"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": "main"}, "name either the cluster"),
        ({"workgroup": None}, "name either the cluster"),
        ({"db_user": "x"}, "db_user"),
        ({"workgroup": None, "cluster": "main", "db_user": "x", "secret_arn": STORED_LOGIN}, "without `secret_arn`"),
        ({"mode": "upsert"}, "needs `keys`"),
        ({"keys": ["n"]}, "upsert"),
        ({"mode": "upsert", "keys": ["n"], "lineage": False}, "lineage"),
        ({"deletes": "gone"}, "`deletes` only works with `mode: upsert`"),
        ({"version": "n"}, "`version` only works with `mode: upsert`"),
        ({"table": "a.b.c"}, "not a table"),
        ({"table": 'x"; DROP TABLE y'}, "cannot name"),
        ({"table": "x" * 125}, "cannot name"),
        ({"table": "x" * 119, "mode": "upsert", "keys": ["n"], "deletes": "gone"}, "cannot name"),
        ({"staging": "s3://lake/../x/"}, "not a place to stage"),
        ({"staging": "s3://lake/it's/"}, "not a place to stage"),
        ({"staging": "s3://lake/ü/"}, "not a place to stage"),
        ({"staging": "file:./x"}, "not a place to stage"),
        ({"iam_role": "arn:aws:iam::1:role/x' FORMAT"}, "pattern"),
        ({"quiet": ["25:00-26:00"]}, "time of day"),
        ({"quiet": "10:00-10:00"}, "time of day"),
        ({"every": "0s"}, "at least 1s"),
        ({"every": "soon"}, "not a duration"),
        ({"units": 1001}, "less than or equal"),
        ({"database": "dev;"}, "pattern"),
    ],
)
def test_invalid_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        config(**options)


def test_a_config_reads_back_from_its_json():
    first = config(mode="upsert", keys=["n"], every="90s", keep_staged="36h", quiet=["22:00-02:30"], types={"n": "smallint"})
    again = RedshiftSinkConfig.model_validate(first.model_dump(mode="json", by_alias=True))
    assert again == first
    assert (first.target, first.ledger) == (("public", "events"), ("public", "events__loads"))


def sink(frame, **options):
    return RedshiftSink(config(**options), frame.schema)


def frame_of(**columns):
    return rows(columns)


def test_the_staged_file_has_the_columns_of_the_layout_in_order():
    frame = frame_of(n=[1, 2], word=["a", "b"])
    made = sink(frame, mode="upsert", keys=["n"])
    assert isinstance(made, RefusingSink)
    (file,) = made.encode(frame, "unit").files
    staged = pl.read_parquet(io.BytesIO(file.body))
    assert staged.columns == [column.name for column in made.layout.columns] == ["n", "word", LINE, *LINEAGE]
    assert staged[LINE].to_list() == [0, 1]
    assert [column.name for column in made.layout.target] == ["n", "word", *LINEAGE]
    assert made.encode(frame, "unit").files == made.encode(frame.clone(), "unit").files
    assert made.encode(frame.clear(), "unit").files == ()


def test_without_lineage_neither_the_file_nor_the_table_has_its_columns():
    frame = frame_of(n=[1, 2])
    made = sink(frame, lineage=False)
    (file,) = made.encode(frame, "unit").files
    assert pl.read_parquet(io.BytesIO(file.body)).columns == [column.name for column in made.layout.columns] == ["n"]


def test_the_deletes_column_is_staged_and_not_in_the_table():
    frame = frame_of(n=[1, 2, 3], Gone=[True, None, False])
    made = sink(frame, mode="upsert", keys=["n"], deletes="Gone")
    (file,) = made.encode(frame, "unit").files
    assert pl.read_parquet(io.BytesIO(file.body))["Gone"].to_list() == [True, False, False]
    assert made.layout.deletes == Column("gone", "boolean", "boolean", target=False, deletes=True)
    assert [column.name for column in made.layout.target] == ["n", *LINEAGE]


def test_the_placement_finds_each_row():
    frame = frame_of(n=[5, 6, 7])
    encoded = sink(frame).encode(frame, "unit")
    assert encoded.placement.rows() == [(0, 0, 0), (1, 0, 1), (2, 0, 2)]


@pytest.mark.parametrize(
    ("value", "options", "reason"),
    [
        (None, {"mode": "upsert", "keys": ["word"]}, "null_key"),
        ("x" * 21, {"types": {"word": "varchar(20)"}}, "text_too_long"),
        ("ü" * 11, {"types": {"word": "varchar(20)"}}, "text_too_long"),
        ("x" * 65_536, {}, "text_too_long"),
        ("a\0b", {}, "nul_character"),
        ("{broken", {"types": {"word": "super"}}, "not_json"),
    ],
)
def test_a_record_that_copy_would_fail_on_is_refused(value, options, reason):
    frame = rows({"word": ["1", value, "2"]}, {"word": pl.String()})
    assert sink(frame, **options).refused(frame).rows() == [(1, reason)]


def test_a_row_without_a_version_is_refused_also_if_it_deletes():
    frame = rows({"n": [1, 2, 3], "at": [5, None, None], "gone": [False, False, True]})
    made = sink(frame, mode="upsert", keys=["n"], version="at", deletes="gone")
    assert made.refused(frame).rows() == [(1, "null_version"), (2, "null_version")]


def test_a_row_larger_than_copy_accepts_is_refused():
    frame = rows({"a": [b"x", b"x" * 1_000_000], **{f"c{n}": [b"", b"x" * 900_000] for n in range(4)}})
    assert sink(frame).refused(frame).rows() == [(1, "row_too_large")]
    long = rows({"a": [b"x" * 1_024_001]})
    assert sink(long).refused(long).rows() == [(0, "binary_too_long")]


def test_values_that_copy_accepts_are_not_refused():
    large = rows({f"c{n}": [b"x" * 1_024_000] for n in range(4)} | {"rest": [b"x" * (4 * 2**20 - 4 * 1_024_000)]})
    assert sink(large).refused(large).is_empty()
    frame = rows({"word": ["x" * 20, "ü" * 10, "", None, 'it\'s; "x"']}, {"word": pl.String()})
    assert sink(frame, types={"word": "varchar(20)"}).refused(frame).is_empty()
    json = rows({"word": ['{"a": [1]}', "null", None, '"x"']}, {"word": pl.String()})
    assert sink(json, types={"word": "super"}).refused(json).is_empty()


def test_a_record_of_several_rows_is_refused_as_a_whole():
    frame = rows({"word": ["a", "b", "a\0", "c"]}).with_columns(pl.Series(ROW, [0, 1, 1, 3], dtype=pl.UInt32))
    schema = {ROW: pl.UInt32(), "outcome": pl.UInt8(), "stage": pl.String(), "reason": pl.String()}
    settled = pl.DataFrame([(2, 2, "filter", "")], schema=schema, orient="row")
    done = accepted(Transformed(frame, settled, 4), [sink(frame)])
    assert done.frame[ROW].to_list() == [0, 3]
    assert done.settled.rows() == [(1, 4, "redshift", "nul_character"), (2, 2, "filter", "")]


def test_rows_that_go_to_another_sink_are_not_refused():
    frame = rows({"word": ["a", "b\0", "c\0", "d"]})
    settled = pl.DataFrame(schema={ROW: pl.UInt32(), "outcome": pl.UInt8(), "stage": pl.String(), "reason": pl.String()})
    taken = {"redshift": pl.Series([True, False, True, True]), "s3": pl.Series([False, True, True, False])}
    done = accepted(Transformed(frame, settled, 4, taken=taken), [sink(frame)])
    assert done.settled.rows() == [(2, 4, "redshift", "nul_character")]
    assert done.frame["word"].to_list() == ["a", "b\0", "d"]
    assert [done.rows_for(name)["word"].to_list() for name in ("redshift", "s3")] == [["a", "d"], ["b\0"]]


def test_staged_files_have_a_codec_that_the_guide_of_redshift_lists():
    frame = pl.DataFrame({"_row": pl.Series([0], dtype=pl.UInt32), "a": ["x"], "b": [[1]]})
    encoded = RedshiftSink(config(lineage=False), frame.schema).encode(frame, "unit")
    group = pq.ParquetFile(io.BytesIO(encoded.files[0].body)).metadata.row_group(0)
    assert {group.column(each).compression for each in range(group.num_columns)} == {"SNAPPY"}
