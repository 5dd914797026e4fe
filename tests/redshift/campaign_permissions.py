# ruff: noqa: S608 - the names of tables are our own
"""A pipeline that loads a table calls AWS only as `stream iam` allows, and the doctor tries this without touching the table."""

import json
from contextlib import ExitStack, contextmanager

import boto3
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.process import helper
from stream.pipeline.access.actions import Account
from stream.pipeline.access.roles import Role, accesses, policy
from stream.pipeline.checks.lint import check
from tests.chaos.workers import Worker
from tests.forked import prepare as prepare_workers
from tests.recording import ACCOUNT, REGION, Naming, judge, recording
from tests.redshift.campaign_worker import PIPELINE, put
from tests.redshift.conftest import KEYS

RECORDS = 200
BY_THE_DATA_API = ["redshift:GetClusterCredentials"]
"""The Data API logs in with the caller's rights; no request of ours shows it."""


@pytest.fixture(scope="module")
def kinesis():
    prepare_workers()
    with helper("stream.local.kinesis") as process:
        client = boto3.client("kinesis", endpoint_url=process.url)
        yield process.url, client
        client.close()


@pytest.fixture
def place(world, kinesis, s3, tmp_path):
    """A pipeline file, the policy of a role for it, and what records, in front of each service."""
    url, client = kinesis
    if "events" not in client.list_streams()["StreamNames"]:
        client.create_stream(StreamName="events", ShardCount=2)
        client.get_waiter("stream_exists").wait(StreamName="events")
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.format(bucket=world.bucket, table=world.table))
    made = check(path, {}).pipeline

    def granted(role):
        return policy(accesses(made, role, Account(ACCOUNT, REGION)))

    targets = {"KINESIS": url, "S3": s3.meta.endpoint_url, "REDSHIFT_DATA": world.double.url}

    @contextmanager
    def recorded():
        with ExitStack() as stack:
            fronts = {name: stack.enter_context(recording(target, Naming(stream="events"))) for name, target in targets.items()}
            environment = KEYS | {f"AWS_ENDPOINT_URL_{name}": front for name, (front, _) in fronts.items()}
            yield environment, {name: recorder for name, (_, recorder) in fronts.items()}

    return path, granted, recorded, client


def test_loader_and_copy_role_need_exactly_their_policies(world, place, s3, tmp_path):
    path, granted, recorded, client = place
    with recorded() as (environment, recorders), recording(s3.meta.endpoint_url) as (front, copies):
        # COPY reads as the role that is attached to Redshift, not as the worker.
        reader = boto3.client("s3", endpoint_url=front)
        world.double._s3 = reader
        put(client, 0, RECORDS)
        worker = Worker([str(path)], environment, tmp_path / "log")
        try:
            expected = [n for n in range(RECORDS) if n % 50]

            def loaded():
                there = world.query(f"SELECT to_regclass('{world.table}') IS NOT NULL")[0][0]
                return [row[0] for row in world.query(f'SELECT n FROM "{world.table}" ORDER BY n')] if there else []

            worker.until(lambda: loaded() == expected)
            assert worker.drain() == 0, worker.said()
        finally:
            worker.end()
            world.double._s3 = s3
            reader.close()
    seen = {each for recorder in recorders.values() for each in recorder.seen}
    judge(granted(Role.WORKER), seen, in_vain=BY_THE_DATA_API)
    judge(granted(Role.REDSHIFT_COPY), copies.seen, in_vain=["s3:ListBucket"])


def doctor(path, environment):
    result = CliRunner().invoke(app, ["doctor", str(path), "--json"], env={**environment, "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"})
    return result, json.loads(result.stdout)["findings"]


ACTIONS = ["ExecuteStatement", "DescribeStatement", "GetStatementResult", "BatchExecuteStatement"]


def test_the_doctor_runs_a_statement_and_a_batch_without_changing_anything(world, place):
    path, _, recorded, _ = place
    before = world.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    with recorded() as (environment, recorders):
        _, findings = doctor(path, environment)
        tried = {each.action for each in recorders["REDSHIFT_DATA"].seen}
    assert [each["verdict"] for each in findings if each["check"] == "warehouse"] == ["ok", "ok"]
    assert tried == {f"redshift-data:{name}" for name in ACTIONS}
    assert world.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") == before


@pytest.mark.parametrize("action", ACTIONS)
def test_the_doctor_names_a_denied_action(place, action):
    path, _, recorded, _ = place
    with recorded() as (environment, recorders):
        recorders["REDSHIFT_DATA"].denied = frozenset({f"redshift-data:{action}"})
        result, findings = doctor(path, environment)
    reported = [each for each in findings if each["check"] == "warehouse" and each["verdict"] == "failed"]
    assert result.exit_code == 1
    assert reported
    assert all(f"redshift-data:{action} on" in each["what"] and each["remedy"] for each in reported)


def table_finding(path, environment):
    return next(each for each in doctor(path, environment)[1] if each["check"] == "table")


def test_the_doctor_finds_a_column_that_was_retyped_by_hand(world, place):
    path, _, recorded, _ = place
    with recorded() as (environment, _):
        assert table_finding(path, environment)["verdict"] == "ok"
        world.seal({0: 1})
        world.load_until_done()
        fits = table_finding(path, environment)
        world.query(f"ALTER TABLE {world.table} ALTER COLUMN n TYPE varchar(40)")
        retyped = table_finding(path, environment)
    assert (fits["verdict"], "its columns fit; the next load adds 1" in fits["what"]) == ("ok", True), fits
    assert retyped["verdict"] == "failed"
    assert "column n is varchar in the table and bigint in the pipeline" in retyped["what"]
    assert world.table in retyped["what"]
    assert retyped["remedy"]


def test_the_doctor_finds_a_table_that_is_too_narrow_for_the_names_of_several_streams(world, place):
    path, _, recorded, _ = place
    with recorded() as (environment, _):
        world.seal({0: 1})
        world.load_until_done()
        world.query(f"ALTER TABLE {world.table} ALTER COLUMN _shard TYPE varchar(26)")
        narrow = table_finding(path, environment)
        path.write_text(path.read_text().replace("{stream: events}", "{streams: [{stream: events}]}"))
        too_narrow = table_finding(path, environment)
    assert narrow["verdict"] == "ok"
    assert too_narrow["verdict"] == "failed"
    assert "column _shard has 26 bytes in the table, and `<stream>/<shard>` of this pipeline up to 27" in too_narrow["what"]


def test_the_doctor_finds_a_table_that_was_renamed_by_hand(world, place):
    path, _, recorded, _ = place
    with recorded() as (environment, _):
        new = table_finding(path, environment)
        world.seal({0: 1})
        world.load_until_done()
        world.query(f"ALTER TABLE {world.table} RENAME TO {world.table}_old")
        renamed = table_finding(path, environment)
    assert (new["verdict"], "the first load makes it" in new["what"]) == ("ok", True), new
    assert renamed["verdict"] == "failed"
    assert "somebody renamed or dropped it" in renamed["what"]


def test_the_doctor_finds_that_there_is_no_schema_for_the_table_and_says_so_until_it_is_made(world, place):
    path, _, recorded, _ = place
    schema = f"s_{world.table}"
    path.write_text(path.read_text().replace(f"table: {world.table}", f"table: {schema}.{world.table}"))
    with recorded() as (environment, _):
        missing = table_finding(path, environment)
        world.query(f"CREATE SCHEMA {schema}")
        made = table_finding(path, environment)
    assert missing["verdict"] == "failed"
    assert f'schema "{schema}" does not exist; create it, for example by CREATE SCHEMA "{schema}", and grant USAGE' in missing["what"]
    assert (made["verdict"], "the first load makes it" in made["what"]) == ("ok", True), made
