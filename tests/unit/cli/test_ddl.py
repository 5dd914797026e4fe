from __future__ import annotations

import io

import boto3
import polars as pl
import pytest
import sqlglot
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.start import LocalAws
from tests.unit.pipeline.definitions import EXAMPLES

FLIGHTS = str(EXAMPLES / "flights" / "pipeline.yaml")

SEVERAL = """
application: my-events
source:
  kinesis: {stream: events}
  schema: {n: int64, Kind: string}
sinks:
  - s3: {url: "s3://lake/events/", partition_by: [{day: "strftime(_arrival, '%Y-%m-%d')"}]}
  - s3: {name: raw, url: "s3://lake/raw/", format: ndjson}
  - redshift: {staging: "s3://lake/staging/", table: events, database: dev, workgroup: analytics, iam_role: default}
  - iceberg: {location: "s3://lake/table/", table: lake.events}
state: "s3://lake/_stream/"
"""


def run(*arguments, env=None):
    return CliRunner().invoke(app, ["ddl", *arguments], env=env or {"MASK_KEY": "any"})


def test_the_statement_for_the_example_is_valid_athena_sql():
    done = run(FLIGHTS, "--table", "lake.flights")
    assert done.exit_code == 0, done.stderr
    (statement,) = [each for each in sqlglot.parse(done.stdout, read="athena") if each]
    assert statement.find(sqlglot.exp.Table).sql("duckdb") == '"lake"."flights"'
    assert "`carrier` string" in done.stdout
    assert "projection.departure_month" in done.stdout
    assert "note: partition `departure_month`" in done.stderr


def test_every_sink_has_its_own_kind_of_statement(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(SEVERAL)
    done = run(str(file))
    assert done.exit_code == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if line.startswith("CREATE")]
    assert [line.partition("(")[0].strip() for line in made] == [
        "CREATE EXTERNAL TABLE IF NOT EXISTS `default`.`my_events_s3`",
        "CREATE EXTERNAL TABLE IF NOT EXISTS `default`.`my_events_raw`",
        'CREATE TABLE IF NOT EXISTS "public"."events__loads"',
        'CREATE TABLE IF NOT EXISTS "public"."events"',
    ]
    assert "'projection.day.range' = '2020-01-01,NOW'" in done.stdout
    assert "an Iceberg table is made by its catalog" in done.stderr
    assert "column 'Kind' is called `kind`" in done.stderr
    assert run(str(file), "--sink", "raw", "--table", "lake.raw").stdout.startswith("CREATE EXTERNAL TABLE IF NOT EXISTS `lake`.`raw`")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sink", "nobody"), "the pipeline has s3, raw, redshift, iceberg"),
        (("--table", "lake.t"), "--table names the table of one s3 sink"),
        (("--sink", "s3", "--table", "T"), "write database.table"),
        (("--since", "yesterday"), "write a day as 2020-01-01"),
    ],
)
def test_a_statement_that_cannot_be_made_exits_with_2(tmp_path, arguments, says):
    file = tmp_path / "pipeline.yaml"
    file.write_text(SEVERAL)
    done = run(str(file), *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.replace("│", " ").split())


def test_columns_from_a_reference_table_are_read_from_it(tmp_path):
    file = tmp_path / "pipeline.yaml"
    stage = 'stages: [lookup: {table: "s3://lake/kinds.parquet", on: Kind, take: {title: title}}]\nsinks:'
    file.write_text(SEVERAL.replace("sinks:", stage, 1))
    table = io.BytesIO()
    pl.DataFrame({"Kind": ["a"], "title": ["A"]}).write_parquet(table)
    with LocalAws() as local:
        environment = local.environment()
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=local.moto.url, **keys)
        client.create_bucket(Bucket="lake")
        missing = run(str(file), "--sink", "raw", env=environment)
        client.put_object(Bucket="lake", Key="kinds.parquet", Body=table.getvalue())
        client.close()
        done = run(str(file), "--sink", "raw", env=environment)
    assert missing.exit_code == 2
    assert "there is no object s3://lake/kinds.parquet" in missing.stderr
    assert done.exit_code == 0, done.stderr
    assert "`title` string" in done.stdout
