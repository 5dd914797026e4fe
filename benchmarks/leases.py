"""The cost of idle leases: ``python benchmarks/leases.py [--shards 200] [--seconds 60] [--failover 10]``.

One worker holds all leases of a stream without traffic, and polls its shards. Prints its share of a core, how often it writes each
lease's row, and how often it polls. DynamoDB is moto behind a proxy that keeps connections open, since moto does not.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import boto3
from common import cpu_seconds
from idle import rest
from memory import environment

sys.path.insert(0, str(Path(__file__).parents[1]))

from stream.local.moto import moto
from stream.local.process import helper
from tests.ports import free_port

PIPELINE = """
application: idle
source:
  kinesis: {{stream: idle}}
  decode: raw
sinks:
  - s3: {{url: "file:lake/"}}
coordination:
  native: {{failover: {failover}s}}
metrics: {{port: {port}}}
state: "file:state/"
"""
SETTLE = 60.0
"""Seconds until everything is leased and being read."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--failover", type=int, default=10)
    given = parser.parse_args()
    with ExitStack() as stack:
        kinesis, moto_server = stack.enter_context(helper("stream.local.kinesis")), stack.enter_context(moto())
        dynamodb = stack.enter_context(helper("tests.fleet.proxy", ["--seed", "1", f"dynamodb={moto_server.url}"]))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        keys = {"region_name": "us-east-1", "aws_access_key_id": "t", "aws_secret_access_key": "t"}
        client = boto3.client("kinesis", endpoint_url=kinesis.url, **keys)
        client.create_stream(StreamName="idle", ShardCount=given.shards)
        client.close()
        port = stack.enter_context(free_port())
        path = Path(folder, "pipeline.yaml")
        path.write_text(PIPELINE.format(failover=given.failover, port=port))
        env = environment(kinesis.url) | {"AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url}
        with subprocess.Popen([sys.executable, "-m", "stream", "run", str(path)], stderr=subprocess.DEVNULL, env=env) as worker:
            rest(worker, SETTLE)
            cpu, counted = cpu_seconds(worker.pid), counters(port)
            rest(worker, given.seconds)
            used, after = cpu_seconds(worker.pid) - cpu, counters(port)
            worker.send_signal(signal.SIGTERM)
    grown = {name: after[name] - counted.get(name, 0.0) for name in after}
    each = grown["writes"] / given.shards / (given.seconds / (given.failover / 3))
    looks = max(1.0, grown["scans"])
    print(f"{given.shards} idle leases: {100 * used / given.seconds:.1f} % of a core over {given.seconds:.0f} s")
    print(f"writes: {each:.2f} per lease and renewal interval, {grown['writes'] / given.seconds:.0f} a second")
    print(f"polls: {grown['polls'] / given.seconds:.0f} a second")
    print(f"looks: one each {given.seconds / looks:.1f} s, {grown['bytes'] / looks / 1024:.0f} KiB each")


def counters(port: int) -> dict[str, float]:
    """Lease counters of the worker, summed over their labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    wanted = {
        "writes": "kst_lease_writes_total",
        "scans": "kst_lease_scans_total",
        "bytes": "kst_lease_scan_bytes_total",
        "polls": "kst_source_polls_total",
    }
    return {
        name: sum(float(found) for found in re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))
        for name, metric in wanted.items()
    }


if __name__ == "__main__":
    main()
