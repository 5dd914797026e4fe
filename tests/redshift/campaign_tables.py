# ruff: noqa: S608 - the names of tables are our own
"""Reference tables from a real PostgreSQL, and from the Redshift double by the Data API."""

import asyncio
import json
from decimal import Decimal
from functools import partial

import asyncpg
import polars as pl
import pytest

from stream.aws.session import AwsSession
from stream.errors import DefinitionError, Retryable
from stream.pipeline.checks.lint import check
from stream.pipeline.resources.fetching import fetch_resources, parse_table
from stream.pipeline.resources.postgresql import read_postgresql
from stream.worker.opening.places import read_object
from tests.ports import free_port
from tests.redshift.double.postgres import postgres

LOGIN = b"reader:a pass:word"
SQL = """
    CREATE TABLE planes (tail text PRIMARY KEY, seats int4, weight float8, built date, seen timestamptz, raw bytea, id uuid, about jsonb,
                         cost numeric(9,2), jet bool, small int2, local timestamp);
    INSERT INTO planes VALUES
        ('N2', NULL, 1.5, '2013-01-01', '2013-01-01T05:00:00-05', '\\x00ff', '12345678-1234-5678-1234-567812345678', '{"a": 1}', 9.99,
         true, 7, '2013-01-01 05:00'),
        ('N1', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE ROLE reader LOGIN PASSWORD 'a pass:word';
    GRANT SELECT, DELETE ON planes TO reader;
    CREATE ROLE guest LOGIN PASSWORD 'a pass:word';
    GRANT SELECT ON planes TO guest;
    ALTER ROLE guest SET default_transaction_read_only = on;
"""
COLUMNS = "tail, seats, weight, built, seen, raw, id, about, jet, small, local, cost"


@pytest.fixture(scope="module")
def server():
    with free_port() as port, postgres(port) as folder:
        place = f"postgresql://127.0.0.1:{port}/dev"
        run = partial(execute, f"postgresql://double@/dev?host={folder}&port={port}")
        run(SQL)
        yield place, run


def execute(url, sql):
    async def go():
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(go())


def read(place, query, login=LOGIN):
    url = f"{place}#{query}"
    return parse_table(url, asyncio.run(read_postgresql(url, login)))


def test_every_type_has_a_column_and_rows_have_one_order(server):
    place, _ = server
    frame = read(place, f"SELECT {COLUMNS} FROM planes")
    assert [str(kind) for kind in frame.dtypes] == [
        "String", "Int32", "Float64", "Date", "Datetime(time_unit='us', time_zone='UTC')", "Binary", "String", "String", "Boolean", "Int16",
        "Datetime(time_unit='us', time_zone=None)", "Decimal(precision=9, scale=2)",
    ]  # fmt: skip
    first, second = frame.with_columns(pl.col("built", "seen", "local").cast(pl.String)).rows()
    assert first == ("N1", 100, *[None] * 10)
    assert second == (
        "N2", None, 1.5, "2013-01-01", "2013-01-01 10:00:00.000000+00:00", b"\x00\xff", "12345678-1234-5678-1234-567812345678", '{"a": 1}',
        True, 7, "2013-01-01 05:00:00.000000", Decimal("9.99"),
    )  # fmt: skip
    url = f"{place}#SELECT {COLUMNS} FROM planes ORDER BY tail"
    orders = {asyncio.run(read_postgresql(f"{url} {order}", LOGIN)) for order in ("ASC", "DESC")}
    assert len(orders) == 1


def test_empty_results_have_types_and_large_results_are_complete(server):
    place, _ = server
    assert read(place, f"SELECT {COLUMNS} FROM planes WHERE false").schema == read(place, f"SELECT {COLUMNS} FROM planes").schema
    assert read(place, "SELECT n::int8 AS n FROM generate_series(1, 50001) AS n")["n"].to_list() == list(range(1, 50_002))


def test_a_numeric_has_the_precision_the_query_declares(server):
    frame = read(server[0], 'SELECT 1::numeric(3) AS "a < b", 2 AS n, (-0.5)::numeric(38,38) AS small, NULL::numeric(5,1) AS nothing')
    assert [str(kind) for kind in frame.dtypes] == [
        "Decimal(precision=3, scale=0)", "Int32", "Decimal(precision=38, scale=38)", "Decimal(precision=5, scale=1)",
    ]  # fmt: skip
    assert frame.rows() == [(Decimal(1), 2, Decimal("-0.5"), None)]
    assert read(server[0], "SELECT count(*) AS n FROM pg_class WHERE relname LIKE 'stream%'")["n"].to_list() == [0]


@pytest.mark.parametrize("login", [LOGIN, json.dumps({"username": "reader", "password": "a pass:word"}).encode()])
def test_a_login_is_one_line_or_a_secrets_manager_document(server, login):
    assert read(server[0], "SELECT 1 AS n", login)["n"].to_list() == [1]


@pytest.mark.parametrize(
    ("query", "login", "says"),
    [
        ("SELECT 1 AS n", b"reader:wrong", "cannot be opened: password authentication failed"),
        ("SELECT 1 AS n", b"nobody", "neither `user:password` nor a JSON object"),
        ("SELECT 1 AS n", b'{"user": "reader"}', "without `username` and `password`"),
        ("SELECT x FROM planes", LOGIN, 'failed: column "x" does not exist'),
        ("DELETE FROM planes RETURNING tail", LOGIN, "failed: cannot execute DELETE in a read-only transaction"),
        ("SELECT 1 AS n; SELECT 2 AS n", LOGIN, "failed: cannot insert multiple commands"),
        ("SELECT 1 AS n, 2 AS n", LOGIN, "give each its own name"),
        ("SELECT sum(cost) AS cost FROM planes", LOGIN, r"'cost' of the database dev is numeric; CAST it to .*numeric\(p,s\) of up to 38"),
        ("SELECT cost::numeric(39,2) FROM planes", LOGIN, "'cost' of the database dev is numeric; CAST it to"),
        ("SELECT cost FROM planes", b"guest:a pass:word", "'cost' of the database dev is numeric; CAST it to"),
        (
            "WITH gone AS (DELETE FROM planes RETURNING cost) SELECT cost FROM gone",
            LOGIN,
            "'cost' of the database dev is numeric; CAST it to",
        ),
        ("SELECT 'NaN'::numeric(9,2) AS n", LOGIN, "'n' of the database dev has NaN or Infinity"),
        ("SELECT ARRAY[1] AS many", LOGIN, "CAST it"),
    ],
)
def test_a_failed_query_says_why_without_showing_the_login(server, query, login, says):
    with pytest.raises(DefinitionError, match=says) as caught:
        read(server[0], query, login)
    assert "pass:word" not in str(caught.value)


def test_an_unreachable_server_is_retryable(server):
    with free_port() as port, pytest.raises(Retryable, match="cannot be reached"):
        read(f"postgresql://127.0.0.1:{port}/dev", "SELECT 1 AS n")
    with pytest.raises(DefinitionError, match='database "none" does not exist'):
        read(server[0].replace("/dev", "/none"), "SELECT 1 AS n")


PIPELINE = """
application: flights
source:
  kinesis: {{stream: flights}}
  schema: {{tail: string}}
stages:
  - enrich:
      table: {table}
      query: SELECT tail, seats FROM {name}
      {login}on: tail
      take: [seats]
sinks:
  - files: {{url: "file:out"}}
state: file:state
"""


def fetched(tmp_path, table, name, login=""):
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.format(table=table, name=name, login=login))
    env = {"LOGIN": LOGIN.decode()}
    checked = check(path, env)
    assert checked.pipeline is not None, checked.findings
    return asyncio.run(fetch_resources(checked.pipeline, tmp_path, env, partial(read_object, AwsSession())))


def test_a_changed_row_is_a_new_version(server, tmp_path):
    place, run = server
    again = partial(fetched, tmp_path, place, "planes", "login: {env: LOGIN}\n      ")
    before, same = again(), again()
    run("UPDATE planes SET seats = 101 WHERE tail = 'N1'")
    after = again()
    run("UPDATE planes SET seats = 100 WHERE tail = 'N1'")
    url = f"{place}#SELECT tail, seats FROM planes"
    assert before.digests == same.digests
    assert before.digests[url] != after.digests[url]
    assert after.resources.tables[url].rows() == [("N1", 101), ("N2", None)]


def test_redshift_is_queried_through_the_data_api(world, tmp_path):
    name = f"ref_{world.table}"

    async def make():
        connection = await world.double.connect()
        try:
            await connection.execute(
                f"CREATE TABLE {name} (tail text, seats int8, seen timestamp, built date, jet bool, weight float8, cost numeric(7,3))"
            )
            await connection.execute(f"INSERT INTO {name} VALUES ('N2', NULL, '2013-01-01 05:00:00.5', '2013-01-01', true, 1.5, -12.125)")
            await connection.execute(f"INSERT INTO {name} VALUES ('N1', 5)")
        finally:
            await connection.close()

    asyncio.run(make())
    found = fetched(tmp_path, "redshift:workgroup/main/dev", name)
    assert next(iter(found.resources.tables.values())).rows() == [("N1", 5), ("N2", None)]
    url = f"redshift:cluster/main/dev?db_user=loader#SELECT * FROM {name}"
    table = parse_table(url, asyncio.run(read_object(AwsSession(), url)))
    assert [str(kind) for kind in table.dtypes[2:]] == [
        "Datetime(time_unit='us', time_zone=None)",
        "Date",
        "Boolean",
        "Float64",
        "Decimal(precision=7, scale=3)",
    ]
    assert table["cost"].to_list() == [None, Decimal("-12.125")]
    assert str(table["seen"][1]) == "2013-01-01 05:00:00.500000"
    with pytest.raises(DefinitionError, match="FAILED"):
        fetched(tmp_path, "redshift:workgroup/main/dev", "nothing_of_this_name")
