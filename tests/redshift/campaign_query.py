# ruff: noqa: S608 - the names of columns and tables are our own
"""`stream query` over the staged files of a table's sink: each row once, whether it is loaded, waits, is parked or is not sealed."""

import json
from collections import Counter

import boto3
import polars as pl
import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.local.process import helper
from tests.redshift.campaign_worker import PIPELINE
from tests.redshift.conftest import KEYS
from tests.redshift.world import UPSERT, shard_id

ROW = ("_shard", "_sequence", "_subsequence", "n", "kind")


def answer(folder, text, sql, *options):
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(text)
    done = CliRunner().invoke(app, ["query", str(pipeline), sql, "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def assert_all_there(world, folder):
    """The answer has every sealed row once, with the file in which it is staged. Returns its notes."""
    found = answer(folder, world.text, f"SELECT {', '.join(ROW)}, _sealed, _file FROM rows", "--no-tail")
    assert all(row["_sealed"] and row["_file"].startswith(f"s3://{world.bucket}/staging/") for row in found["rows"])
    assert Counter(tuple(row[name] for name in ROW) for row in found["rows"]) == Counter(world.sealed_rows().select(ROW).rows())
    return found["notes"]


@pytest.mark.parametrize("options", ["", UPSERT], ids=["append", "upsert"])
def test_each_row_is_there_once_staged_loaded_parked_and_after_the_table_was_renamed(make_world, s3, options, tmp_path):
    world = make_world(options=options)
    world.seal({0: 2, 1: 1})
    assert assert_all_there(world, tmp_path) == [], "staged"
    assert world.load()
    assert assert_all_there(world, tmp_path) == [], "loaded"

    world.seal({0: 1, 1: 1})
    head = str(world.heads()[shard_id(0)])
    (last,) = [each for each in world.manifests() if (each["shard"], each.get("last")) == (shard_id(0), head)]
    key = f"staging/{next(file['key'] for file in last['files'] if file['sink'] == 'redshift')}"
    body = s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=world.bucket, Key=key, Body=bytes(len(body)))
    assert world.load()
    s3.put_object(Bucket=world.bucket, Key=key, Body=body)
    assert [event.shard for event in world.heard if isinstance(event, events.LoadParked)] == [shard_id(0)]
    assert len(world.table_rows()) < len(world.expected()) or options
    assert assert_all_there(world, tmp_path) == [], "parked"

    world.table += "_renamed"
    world.redefine()
    world.seal({0: 1, 1: 1})
    assert assert_all_there(world, tmp_path) == [], "the table has another name, and nothing is loaded into it"
    CliRunner().invoke(app, ["loads", "retry", str(tmp_path / "pipeline.yaml")])
    world.load_until_done()
    assert assert_all_there(world, tmp_path) == [], "loaded into the renamed table"


def test_rows_of_which_only_the_table_is_left_are_counted_in_a_note(make_world, s3, tmp_path):
    world = make_world(options="      keep_staged: 1s\n")
    world.seal({0: 1})
    assert world.load()
    gone = len(world.table_rows())
    world.query(f"UPDATE \"{world.table}__loads\" SET loaded_at = loaded_at - interval '1 hour'")
    world.seal({1: 1})
    assert world.load()
    assert len(s3.list_objects_v2(Bucket=world.bucket, Prefix="staging/")["Contents"]) == 1, "the loader has removed the older file"
    found = answer(tmp_path, world.text, "SELECT DISTINCT _shard FROM rows", "--no-tail")
    assert found["rows"] == [{"_shard": shard_id(1)}]
    (note,) = found["notes"]
    assert note.startswith(f"{gone} rows are not among these")
    assert world.table in note


@pytest.mark.parametrize("options", ["", UPSERT], ids=["append", "upsert"])
def test_a_value_leads_to_its_records_while_files_are_staged_and_by_the_table_afterwards(make_world, s3, options, tmp_path):
    world = make_world(options=f"{options}      keep_staged: 1s\n")
    world.seal({0: 1})
    assert world.load()
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(world.text)

    def traced(text, *more):
        done = CliRunner().invoke(app, ["trace", str(pipeline), "message", text, "--json", *more])
        assert done.exit_code in {0, 1}, done.output
        return {(fate["shard"], fate["sequence"], fate["subsequence"]) for fate in json.loads(done.stdout)}, done.stderr

    rows, loaded = world.sealed_rows(), world.table_rows()
    kind = loaded[0][4]
    everything = {tuple(row) for row in rows.filter(pl.col("kind") == kind).select(*ROW[:3]).rows()}
    assert traced(f"kind={kind}")[0] >= everything
    world.query(f"UPDATE \"{world.table}__loads\" SET loaded_at = loaded_at - interval '1 hour'")
    world.seal({1: 1}, rows=1)
    assert world.load()
    assert len(s3.list_objects_v2(Bucket=world.bucket, Prefix="staging/")["Contents"]) == 1, "the loader has removed the older file"
    there = {row[:3] for row in world.table_rows() if row[4] == kind}
    found, said = traced(f"kind={kind}")
    assert there <= found
    assert "1 files were not searched" in said
    assert ("only the newest row of each key" in said) == bool(options)
    assert not traced(f"kind={kind}", "--no-tables")[0] & {row[:3] for row in loaded}
    number = next(row[3] for row in world.table_rows() if row[3] > 1)
    assert traced(f"n={number}")[0] == {row[:3] for row in world.table_rows() if row[3] == number}
    for hostile in ("kind=k1' OR '1'='1", "n=1 OR 1=1", "kind=:value", "kind="):
        assert traced(hostile)[0] == set(), hostile


def test_rows_that_are_not_sealed_are_there_once_beside_those_that_wait_and_those_that_are_loaded(world, s3, tmp_path, monkeypatch):
    with helper("stream.local.kinesis") as process:
        client = boto3.client("kinesis", endpoint_url=process.url)
        client.create_stream(StreamName="events", ShardCount=2)
        client.get_waiter("stream_exists").wait(StreamName="events")
        text = PIPELINE.format(bucket=world.bucket, table=world.table)
        text = text.replace('  - s3: {url: "s3://' + world.bucket + '/lake/"}\n', "")
        environment = {**KEYS, **world.environment(), "AWS_ENDPOINT_URL_KINESIS": process.url, "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        pipeline = str(tmp_path / "pipeline.yaml")

        def put(numbers):
            entries = [{"Data": json.dumps({"n": n, "word": f"w{n}"}).encode(), "PartitionKey": f"k{n}"} for n in numbers]
            assert client.put_records(StreamName="events", Records=entries)["FailedRecordCount"] == 0

        def asked():
            found = answer(tmp_path, text, "SELECT n, _sealed FROM rows ORDER BY n")["rows"]
            return [(row["n"], row["_sealed"]) for row in found]

        def invoke(*words):
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output

        def loaded():
            return [row[0] for row in world.query(f'SELECT n FROM "{world.table}" ORDER BY n')]

        put(range(20))
        assert asked() == [(n, False) for n in range(20)]
        invoke("run", "--once", pipeline)
        assert loaded() == list(range(20))
        invoke("pause", pipeline, "--loads", "--note", "maintenance")
        put(range(20, 40))
        CliRunner().invoke(app, ["run", "--once", pipeline])
        put(range(40, 60))
        assert loaded() == list(range(20)), "the rest waits"
        assert asked() == [*((n, True) for n in range(40)), *((n, False) for n in range(40, 60))]
        invoke("resume", pipeline, "--loads")
        invoke("run", "--once", pipeline)
        assert loaded() == list(range(60))
        assert asked() == [(n, True) for n in range(60)]
        client.close()
