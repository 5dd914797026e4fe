"""The way from a Firehose stream to a worker in docs/firehose.md: no record is lost, and none is there twice."""

import asyncio
import base64
import gzip
import json
import os

import boto3
import duckdb
import pytest

from stream.clock import SystemClock
from stream.hosts.transforming import Transformer
from stream.pipeline.checks.lint import check
from tests import forked
from tests.docs.commands import block, forked_out, local_aws
from tests.docs.generate import ROOT

SECTION = (ROOT / "docs" / "firehose.md").read_text().partition("## In place of a Firehose stream\n")[2].partition("\n## ")[0]
PIPELINE = (
    block(SECTION, "yaml pipeline").replace("s3://lake/orders/", '"file:lake/orders"').replace("s3://lake-state/_stream/", "file:state")
)
DELIVERED = "lake/orders/2026/11/27/09/orders-1-2026-11-27-09-00-00-5b0c37d1-9e1c-4c6e-9a53-3f6f0d1a2b3c.gz"


@pytest.fixture
def kinesis(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(PIPELINE + "metrics: {port: 0}\n")
    with local_aws(tmp_path, "orders", 2):
        client = boto3.client("kinesis")
        yield client
        client.close()


def delivered(kinesis, folder, count):
    """What Firehose writes of the first ``count`` records of each shard, which the function transforms."""
    asked = []
    for shard in kinesis.list_shards(StreamName="orders")["Shards"]:
        at = kinesis.get_shard_iterator(StreamName="orders", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
        for each in kinesis.get_records(ShardIterator=at["ShardIterator"], Limit=count)["Records"]:
            arrived = round(each["ApproximateArrivalTimestamp"].timestamp() * 1000)
            place = {"shardId": shard["ShardId"], "sequenceNumber": each["SequenceNumber"], "subsequenceNumber": ""}
            asked.append(
                {
                    "recordId": f"{each['SequenceNumber']}000000",
                    "approximateArrivalTimestamp": arrived,
                    "data": base64.b64encode(each["Data"]).decode(),
                    "kinesisRecordMetadata": {**place, "partitionKey": each["PartitionKey"], "approximateArrivalTimestamp": arrived},
                }
            )
    event = {
        "invocationId": "i",
        "deliveryStreamArn": "arn:aws:firehose:us-east-1:123456789012:deliverystream/orders",
        "sourceKinesisStreamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/orders",
        "region": "us-east-1",
        "records": asked,
    }
    pipeline = check(folder / "pipeline.yaml", os.environ).pipeline
    answer = asyncio.run(Transformer(pipeline, folder, os.environ, SystemClock(), ()).answer(event, 60.0))
    lines = [base64.b64decode(each["data"]) for each in answer["records"] if each["result"] == "Ok"]
    path = folder / DELIVERED
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"".join(lines)))
    return len(lines)


def orders(folder):
    files = list((folder / "lake").rglob("*.gz"))
    return sorted(json.loads(line)["order_id"] for path in files for line in gzip.decompress(path.read_bytes()).splitlines())


def test_a_worker_goes_on_after_the_last_record_that_firehose_delivered(kinesis, tmp_path):
    for n in range(80):
        kinesis.put_record(StreamName="orders", Data=json.dumps({"order_id": n}).encode(), PartitionKey=str(n))
    assert 0 < delivered(kinesis, tmp_path, 15) < 80
    with duckdb.connect() as connection:
        connection.sql(block(SECTION, "sql positions")).write_csv(str(tmp_path / "positions.csv"))
    assert "2 row(s) were written" in forked_out(block(SECTION, "sh positions").strip(), tmp_path, "--yes").stdout
    forked_out("stream run pipeline.yaml --once", tmp_path)
    assert orders(tmp_path) == list(range(80))
    folders = {path.parent.relative_to(tmp_path / "lake" / "orders").as_posix() for path in (tmp_path / "lake").rglob("shardId*.gz")}
    assert all(folder.count("/") == 3 and folder.replace("/", "").isdecimal() for folder in folders)
    forked_out("stream audit verify pipeline.yaml", tmp_path)


def test_files_that_others_wrote_are_reported_if_the_place_is_not_shared(kinesis, tmp_path):
    kinesis.put_record(StreamName="orders", Data=b'{"order_id": 1}', PartitionKey="k")
    delivered(kinesis, tmp_path, 15)
    path = tmp_path / "pipeline.yaml"
    path.write_text(path.read_text().replace("      shared: true\n", "").replace("coordination: native\n", ""))
    forked_out("stream run pipeline.yaml --once", tmp_path)
    verified = forked.run("audit", "verify", "pipeline.yaml", cwd=tmp_path)
    assert verified.returncode == 1
    assert DELIVERED in verified.stdout
