"""A definition of AWS Data Pipeline, imported and run over the local emulation of S3: its rows are those of the old file."""

from __future__ import annotations

import csv
import gzip
import io

import boto3
import pytest
import yaml
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.start import LocalAws
from tests.unit.datapipeline.golden import SAMPLES

CLICKS = 'home,7,1.5,2026-01-01 04:10:00\n"a, b",8,,2026-01-01T04:11:00Z\n'
LATER = ",9,0.25,2026-01-01 05:00:00\n"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


def sample(name):
    return str(next(each for each in SAMPLES if each.stem == name))


def run(*arguments, env=None):
    return CliRunner().invoke(app, arguments, env=env)


def pages(client, prefix, delimiter):
    """Keys under a prefix of the lake, and every row of their separated values, as another program reads them."""
    keys = sorted(each["Key"] for each in client.list_objects_v2(Bucket="shop-lake", Prefix=prefix).get("Contents", ()))
    bodies = [client.get_object(Bucket="shop-lake", Key=key)["Body"].read() for key in keys]
    texts = [(gzip.decompress(body) if key.endswith(".gz") else body).decode() for key, body in zip(keys, bodies, strict=True)]
    return keys, [tuple(row) for text in texts for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)]


@pytest.fixture
def lake():
    with LocalAws() as local:
        client = boto3.client("s3", endpoint_url=local.moto.url, **KEYS)
        for bucket in ("shop-lake", "shop-logs"):
            client.create_bucket(Bucket=bucket)
        yield client, local.environment()
        client.close()


def imported(tmp_path, name, pipeline):
    """The pipeline file that a sample becomes, with a free port for its metrics."""
    done = run("import", sample(name), "--into", str(tmp_path / "new"))
    assert done.exit_code == 1, done.output
    file = tmp_path / "new" / pipeline / "pipeline.yaml"
    assert yaml.safe_load(file.read_text())["application"] == f"{name}-{pipeline}"
    file.write_text(file.read_text() + "metrics: {port: 0}\n")
    return str(file)


def test_imported_csv_becomes_tsv_and_each_run_reads_only_new_objects(tmp_path, lake):
    client, environment = lake
    file = imported(tmp_path, "clicks-by-hour", "copy-clicks")
    client.put_object(Bucket="shop-lake", Key="clicks/2026-01-01-04.csv", Body=CLICKS.encode())
    early = run("run", file, "--once", env=environment)
    assert early.exit_code == 1, early.output
    assert "there is no object s3://shop-lake/ready/" in early.output
    client.put_object(Bucket="shop-lake", Key="ready/now", Body=b"x")
    first = run("run", file, "--once", env=environment)
    assert first.exit_code == 0, first.output
    keys, rows = pages(client, "by-hour/", "\t")
    assert sorted(rows) == [
        ("a, b", "8", "", "2026-01-01T04:11:00.000000+00:00"),
        ("home", "7", "1.5", "2026-01-01T04:10:00.000000+00:00"),
    ]
    assert all(key.startswith("by-hour/hour=") for key in keys)
    client.put_object(Bucket="shop-lake", Key="clicks/2026-01-01-05.csv", Body=LATER.encode())
    second = run("run", file, "--once", env=environment)
    assert second.exit_code == 0, second.output
    assert [row[0] for row in sorted(pages(client, "by-hour/", "\t")[1])] == ["", "a, b", "home"]
    proof = run("audit", "verify", file, env=environment)
    assert proof.exit_code == 0, proof.output


def test_lines_are_parsed_with_the_imported_pattern(tmp_path, lake):
    client, environment = lake
    file = imported(tmp_path, "logs-by-pattern", "read-log")
    lines = '192.0.2.7 - [01/Jan/2026] "GET /" HTTP 200\nno line of ours, "\n198.51.100.1 x [02/Jan/2026] "PUT /a" 404\n'
    client.put_object(Bucket="shop-logs", Key="web/access.log.gz", Body=gzipped(lines))
    client.put_object(Bucket="shop-logs", Key="web/other.log.gz", Body=gzipped(lines))
    done = run("run", file, "--once", env=environment)
    assert done.exit_code == 0, done.output
    assert sorted(pages(client, "access/", "|")[1]) == [
        ("192.0.2.7", "01/Jan/2026", "GET /", "200"),
        ("198.51.100.1", "02/Jan/2026", "PUT /a", "404"),
    ]


def gzipped(text):
    return gzip.compress(text.encode())
