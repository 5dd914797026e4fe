# ruff: noqa: S608 - statements are compared
import json
from datetime import UTC, datetime

import polars as pl
import pytest

from stream.sink import redshift_sql as sql
from stream.sink.loads import Failure, Link, Load, StagedFile
from stream.sink.redshift_names import BadName
from stream.sink.redshift_sql import Owner, Step
from stream.sink.redshift_types import layout_of
from tests.contract.warehouse import config

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNER = Owner("app", "events")
LAYOUT = layout_of({"n": pl.Int64(), "tags": pl.List(pl.String()), "_sequence": pl.String(), "_subsequence": pl.UInt32()}, {})
EVENTS = ("public", "events")
BEGIN = 49590338271490256608559692538361571095921575989136588898


def load(units=1, shards=1):
    links = [
        Link(f"shardId-{shard:012d}", BEGIN + n, BEGIN + n + 1, (StagedFile(f"s3://lake/staging/{shard}-{n}.parquet", 17, 3),), LAYOUT)
        for shard in range(shards)
        for n in range(units)
    ]
    return Load(tuple(links), LAYOUT)


def statements(what, **options):
    return sql.load_statements(config(**options), OWNER, what, "s3://lake/staging/_loads/x.manifest", NOW)


def test_a_load_locks_checks_the_ledger_copies_counts_moves_and_records():
    steps = [step for step, _ in statements(load())]
    assert steps == [
        Step.LOCK,
        Step.LEDGER,
        Step.LEDGER,
        Step.IN_ORDER,
        Step.STAGE,
        Step.COPY,
        Step.COUNT,
        Step.MOVE,
        Step.CLEAN,
        Step.LEDGER,
        Step.CLEAN,
    ]


def test_exactly_as_many_rows_as_the_manifests_say_are_moved():
    (count,) = [text for step, text in statements(load(units=2)) if step is Step.COUNT]
    assert count == 'SELECT 1 / CASE WHEN COUNT(*) = 6 THEN 1 ELSE 0 END FROM "stream_staged"'


def test_copy_reads_a_manifest_into_its_own_staging_table():
    (copy,) = [text for step, text in statements(load()) if step is Step.COPY]
    assert copy == (
        "COPY \"stream_staged\" FROM 's3://lake/staging/_loads/x.manifest' IAM_ROLE 'arn:aws:iam::123456789012:role/loader' "
        "FORMAT AS PARQUET MANIFEST SERIALIZETOJSON"
    )
    assert json.loads(sql.copy_manifest(load(units=2)))["entries"][1] == {
        "url": "s3://lake/staging/0-1.parquet",
        "mandatory": True,
        "meta": {"content_length": 17},
    }


def test_a_stream_whose_id_is_too_long_for_the_ledger_is_told_from_others_by_a_digest():
    fits, name = Owner("app", "n" * 128), f"{'n' * 128}@111122223333.ap-southeast-1"
    assert fits.recorded == fits.stream
    long = [Owner("app", each) for each in (name, f"{name}.aws-iso-b", f"backfill.{name}.20260101T000000Z-20260102T000000Z")]
    assert [len(each.recorded) for each in long] == [128] * 3
    assert len({each.recorded for each in (fits, *long)}) == 4
    assert long[0].recorded == f"{'n' * 95}~c8405ce53e6960ecd697f127b6055a38"
    what = load()
    written = [text for step, text in sql.load_statements(config(), long[0], what, "s3://x", NOW) if step is Step.LEDGER]
    assert f"('app', '{long[0].recorded}', 'shardId-000000000000', " in written[1]
    assert f"stream = '{long[0].recorded}'" in sql.positions(config(), long[0])


def test_columns_are_always_named():
    moves = [text for step, text in statements(load()) if step is Step.MOVE]
    names = '"n", "tags", "_sequence", "_subsequence"'
    assert moves == [f'INSERT INTO "public"."events" ({names}) SELECT {names} FROM "stream_staged"']


MERGED = {"mode": "upsert", "keys": ["n"]}


def moved(layout, **options):
    what = Load((Link("s", 0, 1, (StagedFile("s3://lake/x", 1, 1),), layout),), layout)
    return [
        text.partition(" WHERE ")[0].partition(" USING ")[0].partition(" (")[0]
        for step, text in statements(what, **options)
        if step is Step.MOVE
    ]


SCHEMA = pl.Schema({"n": pl.Int64(), "gone": pl.Boolean(), "_sequence": pl.String(), "_subsequence": pl.UInt32(), "_row": pl.UInt32()})


@pytest.mark.parametrize("sealed", [{}, MERGED, {**MERGED, "deletes": "gone"}])
@pytest.mark.parametrize(
    "now", [{}, MERGED, {"mode": "upsert", "keys": ["other"]}, {"mode": "upsert", "keys": ["other"], "deletes": "gone"}]
)
def test_a_unit_is_appended_or_merged_as_configured_when_it_was_sealed(sealed, now):
    layout = config(**sealed).layout(SCHEMA)
    assert moved(layout, **now) == moved(layout, **sealed)


def test_an_upsert_records_deletions_as_soon_as_a_definition_has_them():
    schema = SCHEMA
    before, after = config(**MERGED).layout(schema), config(**MERGED, deletes="gone").layout(schema)
    assert not any("events__deleted" in text for text in moved(before, **MERGED))
    assert sum("events__deleted" in text for text in moved(before, **MERGED, deletes="gone")) == 1
    assert sum("events__deleted" in text for text in moved(after, **MERGED)) == 2
    assert moved(after, **MERGED) == moved(after, **MERGED, deletes="gone")
    tables = ["events", "events__deleted"]
    verbs = [f'{verb} "public"."{table}"' for verb in ("DELETE FROM", "INSERT INTO") for table in tables]
    assert moved(after, **MERGED)[1:-1] == verbs


@pytest.mark.parametrize("options", [{}, {"mode": "upsert", "keys": ["n"]}])
def test_two_hundred_units_of_any_number_of_shards_are_one_transaction(options):
    one, many = statements(load(units=200), **options), statements(load(units=1, shards=200), **options)
    assert len(one) == len(many) <= 16
    assert max(len(text) for _, text in one + many) < sql.MAX_STATEMENT_BYTES


def test_a_thousand_units_fit_into_one_transaction():
    made = statements(load(units=1000))
    assert len(made) <= sql.MAX_STATEMENTS
    values = "".join(text for step, text in made if step is Step.LEDGER and "VALUES" in text)
    assert values.count("TIMESTAMP") == 1000


def test_too_many_columns_for_one_statement_are_reported():
    wide = layout_of({f"{'c' * 100}{n}": pl.Int64() for n in range(1000)}, {})
    links = (Link("s", 0, 1, (StagedFile("s3://lake/x", 1, 1),), wide),)
    with pytest.raises(ValueError, match="Lower `units`, or select fewer columns"):
        statements(Load(links, wide))


def test_a_load_without_files_only_writes_the_ledger():
    steps = [step for step, _ in statements(Load((Link("s", 0, 9, links=3),), None))]
    assert Step.COPY not in steps
    assert Step.MOVE not in steps
    assert steps.count(Step.LEDGER) == 3


def test_load_ids_are_derived_from_what_is_loaded():
    assert sql.load_id(OWNER, config(), load()) == sql.load_id(OWNER, config(units=7), load())
    assert sql.load_id(OWNER, config(), load()) != sql.load_id(OWNER, config(table="other"), load())
    assert sql.load_id(OWNER, config(), load()) != sql.load_id(OWNER, config(), load(units=2))


def test_a_shard_id_with_a_quote_never_reaches_a_statement():
    with pytest.raises(BadName):
        statements(Load((Link("s'); DROP TABLE x; --", 0, 1),), None))
    with pytest.raises(BadName):
        sql.load_statements(config(), OWNER, load(), "s3://lake/it's", NOW)


@pytest.mark.parametrize(
    ("step", "error", "failure"),
    [
        (Step.IN_ORDER, "ERROR: division by zero", Failure.RACE),
        (Step.COUNT, "ERROR: division by zero", Failure.DATA),
        (Step.MOVE, "ERROR: 1023 DETAIL: Serializable isolation violation on table - 100211", Failure.TRANSIENT),
        (Step.COPY, "ERROR: S3ServiceException: Please reduce your request rate, Status 503, Error SlowDown", Failure.TRANSIENT),
        (Step.COPY, "ERROR: S3ServiceException: The specified key does not exist., Status 404", Failure.DATA),
        (Step.COPY, "ERROR: S3ServiceException: Access Denied, Status 403", Failure.SETUP),
        (Step.LOCK, "ERROR: permission denied for relation events__loads", Failure.SETUP),
        (Step.COPY, "ERROR: Load into table 'x' failed. Check 'sys_load_error_detail'; file 1023503.parquet", Failure.DATA),
        (Step.COPY, "ERROR: S3ServiceException:The provided token has expired.,Status 400,Error ExpiredToken,Rid 7", Failure.TRANSIENT),
        (Step.LOCK, "FATAL: the database system is starting up", Failure.TRANSIENT),
        (None, "FATAL: the database system is in recovery mode", Failure.TRANSIENT),
        (None, "Query aborted by user", Failure.TRANSIENT),
        (Step.COPY, "ERROR: cannot execute COPY in a read-only transaction", Failure.TRANSIENT),
        (None, "FATAL: the cluster is being paused", Failure.TRANSIENT),
        (None, "ERROR: The database is temporarily unavailable. Please try again later", Failure.TRANSIENT),
    ],
)
def test_a_failure_is_classified_by_its_step_and_message(step, error, failure):
    assert sql.judge(step, error) is failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("ERROR: Load into table 'device_connections' failed.  Check 'stl_load_errors' system table for details.", Failure.DATA),
        (
            "ERROR: Spectrum Scan Error. File 'https://s3.us-east-1.amazonaws.com/lake/aborted/a': incompatible schema, 'timeout_ms'",
            Failure.DATA,
        ),
        ("Cannot COPY into nullable column timeout", Failure.DATA),
        ("Invalid manifest s3://lake/restarts/x.manifest", Failure.DATA),
        ("ERROR: permission denied for relation device_connections", Failure.SETUP),
        ('ERROR: relation "concurrent.access denied" is locked: canceled', Failure.TRANSIENT),
        ("ERROR: 1023 Detail: Serializable isolation violation on table device_errors", Failure.TRANSIENT),
        ("ERROR: connection to table connections was reset", Failure.TRANSIENT),
    ],
)
def test_names_inside_an_error_message_do_not_change_its_classification(error, failure):
    assert sql.judge(sql.Step.COPY, error) is failure


@pytest.mark.parametrize(
    "error",
    [
        "ERROR: Cannot insert a NULL value into column n",
        'ERROR: null value in column "n" of relation "events" violates not-null constraint',
    ],
)
def test_the_remedy_for_a_column_that_was_made_not_null_is_a_text_to_run(error):
    said = sql.remedy(EVENTS, LAYOUT, error)
    assert said.startswith("; the column n is NOT NULL in the table")
    assert said.endswith(
        'ALTER TABLE "public"."events" ADD COLUMN "n_new" bigint; UPDATE "public"."events" SET "n_new" = "n"; '
        'ALTER TABLE "public"."events" DROP COLUMN "n"; ALTER TABLE "public"."events" RENAME COLUMN "n_new" TO "n"'
    )
    assert sql.judge(Step.MOVE, error) is Failure.DATA


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ('ERROR: schema "sales" does not exist', '; create it, for example by CREATE SCHEMA "sales", and grant USAGE and CREATE on it'),
        ("ERROR: permission denied for schema sales", "; let somebody who may run GRANT USAGE, CREATE ON SCHEMA sales to the user"),
        ('ERROR: relation "sales.events" does not exist', ""),
    ],
)
def test_of_a_schema_it_is_said_what_to_run(error, says):
    assert sql.schema_remedy(error).startswith(says)
    assert bool(sql.schema_remedy(error)) == bool(says)
    assert sql.judge(None, error) is Failure.SETUP


@pytest.mark.parametrize("error", ["ERROR: integer out of range", "ERROR: Cannot insert a NULL value into column other", ""])
def test_where_no_remedy_is_known_none_is_given(error):
    assert sql.remedy(EVENTS, LAYOUT, error) == ""
    assert sql.remedy(EVENTS, None, "null value in column n") == ""


def test_what_a_person_runs_to_pass_over_units_is_a_row_of_the_ledger_without_a_load():
    link = Link("shardId-000000000000", 0, 17)
    statement = sql.passing_over(config(), OWNER, link, NOW)
    assert statement.startswith('INSERT INTO "public"."events__loads" ("application", "stream", "shard", "after", "last", "links", "rows"')
    assert statement.count(sql.padded(17)) == 1
    ledger = next(text for step, text in statements(Load((link,), None)) if step is Step.LEDGER and text.startswith("INSERT"))
    # But for the name of the load, the row is the one that a load of such a link writes.
    assert (
        statement.partition(" VALUES ")[2].replace("by hand", sql.load_id(OWNER, config(), Load((link,), None)))
        == ledger.partition(" VALUES ")[2]
    )
