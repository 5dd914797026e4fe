"""The transcript of docs/status.md, made again: a worker over a stream in the emulator, whose clock both share and which stands still."""

import asyncio
import json
import os
import re
from contextlib import suppress
from datetime import timedelta

import pytest

from stream import events
from stream.errors import Fatal
from stream.operations.status.finding import Harm
from stream.pipeline.checks.lint import check
from stream.source.keys import hash_key
from stream.worker import service
from stream.worker.assemble import WorkerOptions
from stream.worker.service import run_worker
from tests.clocks import StandingClock
from tests.docs.commands import block, carried_out, emulated, fields
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "status.md").read_text()
BLOCK = block(PAGE, "text status")
PIPELINE = """
application: clicks
source:
  kinesis: {stream: clicks}
  schema: {page: string}
sinks: [s3: {url: "file:lake"}]
state: file:state
rejects: {min_records: 10}
metrics: {port: 0}
flush: {age: 100ms}
"""
KEYS = tuple(next(key for key in map(str, range(100)) if hash_key(key) * 2 >> 128 == half) for half in (0, 1))
"""A partition key of each of two shards."""


def work(folder, clock, until):
    """A worker, until ``until`` holds for all that it has told so far."""
    heard = []

    def listen(event):
        heard.append(event)
        if until(heard):
            os.kill(os.getpid(), 15)

    pipeline = check(folder / "pipeline.yaml", {}).pipeline
    with suppress(Fatal):
        asyncio.run(run_worker(pipeline, WorkerOptions(folder, os.environ, 20.0, 1, (listen,), clock)))


def sealed(heard):
    return sum(count for event in heard if isinstance(event, events.UnitSealed) for _, count in event.outcomes)


def printed(folder):
    """What the page's command prints, and its document."""
    clock = StandingClock()
    with pytest.MonkeyPatch.context() as patched, emulated(folder, PIPELINE, "clicks", 2, clock) as client:
        # The width of a table depends on the worker's name, which contains this machine's name and the number of the process.
        patched.setattr(service, "worker_id", lambda _clock: "clicks-0/1-1767236400")

        def put(key, data, count):
            client.put_records(StreamName="clicks", Records=[{"Data": data, "PartitionKey": key}] * count)

        for key in KEYS:
            put(key, b'{"page": "/"}', 400)
        work(folder, clock, lambda heard: sealed(heard) >= 800)
        clock.moment += timedelta(minutes=20)
        put(KEYS[0], b'{"page": 1}', 60)
        work(folder, clock, lambda heard: any(isinstance(event, events.ShardHalted) for event in heard))
        clock.moment += timedelta(minutes=7)
        command = re.match(r"\$ (stream .*)\n", BLOCK)[1]
        text, document = (carried_out(line, code=1) for line in (command, f"{command} --json"))
    lines = re.sub(r"\b[0-9]{52}([0-9]{4})\b", r"4968...\1", text.output).splitlines()
    return f"$ {command}\n" + "".join(f"{line.rstrip()}\n" for line in lines), json.loads(document.output)


def test_the_command_prints_what_the_page_shows(tmp_path):
    text, document = printed(tmp_path)
    assert re.sub(r"\.\.\.[0-9]{4}", "...", text) == re.sub(r"\.\.\.[0-9]{4}", "...", BLOCK)
    stream = document["streams"][0]
    places = [
        document,
        stream,
        stream["findings"][0],
        stream["workers"][0],
        stream["shards"][0],
        stream["shards"][0]["halted"],
        stream["dead_letters"],
    ]
    assert [set(each) - fields(PAGE) for each in places] == [set()] * len(places)


def test_the_page_names_every_verdict_and_every_finding():
    folder = ROOT / "stream" / "operations" / "status"
    source = "".join((folder / name).read_text() for name in ("rules.py", "lease_rules.py", "definitions.py"))
    codes = set(re.findall(r'Finding\(\s*"([a-z_]+)"', source))
    assert len(codes) > 12
    assert codes == set(re.findall(r"^\| `([a-z_]+)` \|", PAGE.partition("## What it finds")[2].partition("## ")[0], re.MULTILINE))
    table = PAGE.partition("## The verdict")[2].partition("## ")[0]
    assert {harm.words for harm in Harm} == set(re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE))
