"""One of two sinks stops answering: its unit waits, the next units wait for that one, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal

from stream.local.moto import moto
from tests.chaos.conftest import client

RECORDS = 3000


def test_a_sink_that_does_not_answer_delays_its_shard_and_loses_nothing(make_world):
    world = make_world(1)
    with moto() as slow:
        s3 = client("s3", slow.url)
        s3.create_bucket(Bucket="slow")
        path = world.pipeline()
        path.write_text(
            path.read_text().replace("flush", '  - s3: {name: slow, url: "s3://slow/", format: ndjson, compression: none}\nflush', 1)
        )
        worker = world.start(path, AWS_ENDPOINT_URL_S3=slow.url)
        world.put_all(payloads(0, 50))
        worker.until(world.committed)
        sealed = world.sealed_units()
        os.kill(slow.pid, signal.SIGSTOP)
        try:
            world.put_all(payloads(50, RECORDS))
            worker.until(lambda: unfinished_units(world) == 1)
            assert world.sealed_units() == sealed
        finally:
            os.kill(slow.pid, signal.SIGCONT)
        worker.until(world.committed)
        assert worker.drain() == 0
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="slow")
        bodies = [s3.get_object(Bucket="slow", Key=entry["Key"])["Body"].read() for page in pages for entry in page.get("Contents", [])]
        s3.close()
    assert sorted(json.loads(line)["id"] for body in bodies for line in body.splitlines()) == list(range(RECORDS))


def unfinished_units(world):
    return sum(manifest["state"] == "intent" for manifest in world.manifests())


def payloads(first, last):
    return [json.dumps({"id": number, "kind": "a", "value": number % 90, "note": "x" * 300}).encode() for number in range(first, last)]
