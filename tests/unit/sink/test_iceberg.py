"""Which columns an Iceberg sink accepts, and which files it writes; tests/contract/test_iceberg.py has engines read the files."""

import re
from datetime import UTC, datetime

import polars as pl
import pytest
from pydantic import ValidationError

from stream.batch import LINEAGE, ROW
from stream.sink.iceberg import IcebergSink, IcebergSinkConfig
from stream.sink.partition import SinkMismatch
from tests.frames import rows

GIVEN = {"location": "s3://lake/events/", "table": "lake.events"}
AT = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)


def config(**options):
    return IcebergSinkConfig.model_validate({**GIVEN, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"location": "https://lake/events"}, "is not a location for a table; write s3://bucket/prefix/"),
        ({"location": "s3://lake"}, "is not a location for a table"),
        ({"location": "s3://lake/../events/"}, "is not a location for a table"),
        ({"table": "events"}, "'events' is not a table; write `namespace.table`"),
        ({"table": "lake.Events"}, "is not a table name in Glue, which has the form `database.table` in lower case"),
        ({"table": "a.b.c"}, "is not a table name in Glue"),
        ({"catalog": {}}, "`type` of the catalog is None; allowed: glue, rest, sql"),
        ({"catalog": {"type": "rest"}}, "a catalog of type rest needs its `uri`"),
        (
            {"catalog": {"type": "rest", "uri": "https://c", "token": "abc"}},
            "the property 'token' is a secret",
        ),
        ({"catalog": {"type": "glue", "s3.secret-access-key": "abc"}}, "is a secret"),
        ({"secrets": {"credential": "abc"}}, "a secret is given by reference"),
        ({"partition_by": ["day(at)", "day(at)"]}, "names a partition field twice"),
        ({"partition_by": ["a", "b", "c", "d"]}, "at most 3"),
        ({"every": "100ms"}, "not a duration"),
        ({"quiet": "noon"}, "is not a time of day"),
    ],
)
def test_invalid_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=re.escape(words)):
        config(**options)


def test_secrets_and_fields_have_a_short_form():
    given = config(catalog={"type": "rest", "uri": "https://catalog"}, secrets={"credential": {"env": "KEY"}}, partition_by="day(at)")
    assert (given.secret_names(), given.partition_by) == (("env:KEY",), ("day(at)",))
    assert config(**given.model_dump(mode="json", by_alias=True)) == given


@pytest.mark.parametrize(
    ("schema", "options", "words"),
    [
        ({"n": pl.Duration("us")}, {}, "which Iceberg does not have"),
        ({"n": pl.Datetime("ns")}, {}, "cast it to timestamp in a stage"),
        ({"n": pl.List(pl.Struct({"at": pl.Time}))}, {}, "has or holds the type Time"),
        ({"n": pl.List(pl.Struct({}))}, {}, "holds an object without fields"),
        ({"a.b": pl.Int64()}, {}, "where a dot separates nested fields"),
        ({"Kind": pl.String(), "kind": pl.String()}, {}, "are one column to Athena, Glue and Spark"),
        ({"n": pl.Int64()}, {"partition_by": ["kind"]}, "there is no column 'kind'"),
        ({"n": pl.Float64()}, {"partition_by": ["n"]}, "has no identity"),
        ({"n": pl.Int64()}, {"partition_by": ["day(n)"]}, "has no day"),
        ({"n": pl.Date()}, {"partition_by": ["hour(n)"]}, "has no hour"),
        ({"n": pl.List(pl.Int64)}, {"partition_by": ["n"]}, "has no identity"),
    ],
)
def test_columns_without_an_iceberg_type_are_refused_before_anything_is_read(schema, options, words):
    with pytest.raises(SinkMismatch, match=re.escape(words)):
        config(**options).check(pl.Schema({ROW: pl.UInt32(), **schema}))


def test_each_file_holds_one_partition_in_the_data_folder():
    frame = rows({"at": [AT, AT.replace(day=2), None], "n": [1, 2, 3]}, {"at": pl.Datetime("ms", "Europe/Berlin"), "n": pl.UInt64()})
    sink = IcebergSink(config(partition_by=["day(at)"]), frame.schema)
    encoded = sink.encode(frame, "shard-0-9")
    folders = [file.key.rpartition("/")[0] for file in encoded.files]
    assert folders == ["data/at_day=2026-01-01", "data/at_day=2026-01-02", "data/at_day=__HIVE_DEFAULT_PARTITION__"]
    assert encoded.placement["file"].to_list() == [0, 1, 2]
    read = pl.read_parquet(encoded.files[0].body)
    assert (read.schema["at"], read.schema["n"]) == (pl.Datetime("us", "UTC"), pl.Decimal(20, 0))
    assert [name for name in read.columns if name in LINEAGE] == list(LINEAGE)
    assert sink.config.key_pattern("UNIT").startswith("data/at_day=<at_day>/UNIT.")


def test_lineage_can_be_left_out():
    frame = rows({"n": [1]})
    (file,) = IcebergSink(config(lineage=False), frame.schema).encode(frame, "u").files
    assert pl.read_parquet(file.body).columns == ["n"]


def test_records_without_a_partition_are_refused_before_anything_is_written():
    kinds = ["a", "b", "x" * 1001, "c", "d", None, "a"]
    frame = rows({"kind": kinds})
    sink = IcebergSink(config(partition_by=["kind"], max_partitions=4), frame.schema)
    refused = sink.refused(frame)
    assert refused.schema == {ROW: pl.UInt32(), "reason": pl.String()}
    assert refused.rows() == [(2, "partition_too_long"), (4, "no_partition"), (5, "no_partition")]
    kept = frame.join(refused, on=ROW, how="anti")
    assert len(sink.encode(kept, "u").files) == 3
    assert sink.refused(kept).is_empty()


def test_without_partitions_nothing_is_refused():
    frame = rows({"kind": ["x" * 2000]})
    assert IcebergSink(config(), frame.schema).refused(frame).is_empty()
    assert IcebergSink(config(partition_by=["kind"]), frame.schema).refused(frame.clear()).is_empty()
