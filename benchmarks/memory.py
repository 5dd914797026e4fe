"""Peak memory of a worker that is far behind: ``python benchmarks/memory.py [--megabytes 1024] [--record-bytes 350]``.

Kinesis is the emulator in a process of its own; results go to a temporary directory. Prints the worker's VmHWM, its peak memory, and its
throughput.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import boto3

from stream.local.process import helper

PIPELINE = """
application: memory
source:
  kinesis: {{stream: memory, start: trim_horizon}}
  decode: json
  schema: {{id: int64, carrier: string, delay: int64?, note: string}}
stages:
  - filter: delay IS NOT NULL
  - derive: {{late: delay > 15}}
sinks:
  - s3: {{url: "file:lake", partition_by: [carrier]}}
flush: {{age: 10s, bytes: 64MiB}}
memory: {{budget: {budget}}}
metrics: {{port: 0}}
state: "file:state"
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--record-bytes", type=int, default=350)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--budget", default="256MiB")
    given = parser.parse_args()
    with helper("stream.local.kinesis") as kinesis, tempfile.TemporaryDirectory() as folder:
        records = fill(kinesis.url, given.shards, given.megabytes * 2**20 // given.record_bytes, given.record_bytes)
        path = Path(folder, "pipeline.yaml")
        path.write_text(PIPELINE.format(budget=given.budget))
        peak, seconds = measure(path, kinesis.url, records)
    print(f"{given.megabytes} MiB in {records} records of {given.record_bytes} B on {given.shards} shards, budget {given.budget}: "
          f"peak RSS {peak:.0f} MiB, {seconds:.1f} s, {given.megabytes / seconds:.0f} MiB/s")  # fmt: skip


def fill(url: str, shards: int, records: int, size: int) -> int:
    """Put ``records`` records of ``size`` bytes; random text, which hardly compresses."""
    rng = Random(1)
    client = boto3.client("kinesis", endpoint_url=url, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
    client.create_stream(StreamName="memory", ShardCount=shards)
    head = len(json.dumps({"id": 10**9, "carrier": "AA", "delay": 100, "note": ""}))
    noise = rng.randbytes(2**20).hex()
    for start in range(0, records, 500):
        entries = []
        for at in range(start, min(start + 500, records)):
            offset = rng.randrange(len(noise) - size)
            row = {"id": 10**9 + at, "carrier": rng.choice(("AA", "UA", "DL")), "delay": rng.randrange(100, 999),
                   "note": noise[offset : offset + size - head]}  # fmt: skip
            entries.append({"Data": json.dumps(row).encode(), "PartitionKey": str(at)})
        client.put_records(StreamName="memory", Records=entries)
    client.close()
    return records


def environment(url: str) -> dict[str, str]:
    keys = {"AWS_ENDPOINT_URL_KINESIS": url, "AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t", "AWS_REGION": "us-east-1"}
    root = str(Path(__file__).parents[1])
    return {**os.environ, **keys, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}


def measure(path: Path, url: str, records: int) -> tuple[float, float]:
    """Peak memory in MiB and seconds until ``records`` are sealed."""
    log = path.with_name("log")
    begun = time.monotonic()
    with (
        log.open("wb") as errors,
        subprocess.Popen([sys.executable, "-m", "stream", "run", str(path)], stderr=errors, env=environment(url)) as worker,
    ):
        while worker.poll() is None and sealed(log) < records:
            _pause(worker, 0.5)
        seconds = time.monotonic() - begun
        status = Path("/proc", str(worker.pid), "status").read_text()
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    if worker.returncode:
        print(log.read_text()[-2000:], file=sys.stderr)
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0, seconds


def sealed(log: Path) -> int:
    """Records in sealed units, by the worker's own log."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    return sum(sum(line["outcomes"].values()) for line in lines if line["event"] == "unit_sealed")


def _pause(worker: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        worker.wait(seconds)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    main()
