"""A stream with one shard in the emulator, and a complete worker that can be run on it repeatedly in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from stream import events
from stream.commit.manifest import Manifest, State, decode, encode
from stream.concurrency import ObservableEvent
from stream.contracts import Clock, Shard
from stream.pipeline.checks.lint import check
from stream.worker.assemble import WorkerOptions, assemble
from stream.worker.parts import Stop
from stream.worker.service import run_worker
from stream.worker.shards.shard import run_shard
from stream.worker.sources.reading import Reading
from tests.clocks import ShiftedClock

PIPELINE = """
application: app
source:
  kinesis: {{stream: numbers, endpoint: "{url}", on_expired: {on_expired}, start: {start}}}
  schema: {{n: int64}}
sinks: [s3: {{url: "file:lake"}}]
state: file:state
flush: {{age: 100ms}}
metrics: {{port: 0}}
"""


class Stage:
    """A stream with one shard and a worker that can be run repeatedly."""

    def __init__(self, client: Any, url: str, clock: ShiftedClock, folder: Path) -> None:
        self.client = client
        self.url = url
        self.clock = clock
        self.folder = folder
        self.more = ""
        """Text added to the pipeline file."""
        client.create_stream(StreamName="numbers", ShardCount=1)

    shard = "shardId-000000000000"

    def put(self, numbers: Iterable[Any]) -> None:
        """Put a record for each number, all at once: a worker that is reading just then gets all of them in one page, or none."""
        entries = [{"Data": json.dumps({"n": n}).encode(), "PartitionKey": "k"} for n in numbers]
        if entries:
            assert self.client.put_records(StreamName="numbers", Records=entries)["FailedRecordCount"] == 0

    def work(
        self,
        until: Callable[[events.Event], bool],
        on_expired: str = "gap",
        reading: Reading | None = None,
        start: str = "trim_horizon",
        clock: Clock | None = None,
    ) -> list[events.Event]:
        """Run a worker until ``until`` holds for an event, then stop it by SIGTERM; its events. ``clock``: the worker's, if it differs."""
        heard: list[events.Event] = []

        def listen(event: events.Event) -> None:
            heard.append(event)
            if until(event):
                signal.raise_signal(signal.SIGTERM)

        file = self.folder / "pipeline.yaml"
        file.write_text(PIPELINE.format(url=self.url, on_expired=on_expired, start=start) + self.more)
        result = check(file, {})
        assert result.pipeline is not None, result.findings
        options = WorkerOptions(self.folder, os.environ, 20.0, 1, (listen,), clock or self.clock, reading=reading or Reading())
        asyncio.run(run_worker(result.pipeline, options))
        return heard

    def run_one(self, shard: Shard) -> tuple[str, ...] | Stop:
        """Work on one shard, as a worker with its lease does, whether or not the stream lists the shard."""

        async def run() -> tuple[str, ...] | Stop:
            async with AsyncExitStack() as stack:
                options = WorkerOptions(self.folder, os.environ, 20.0, 1, (), self.clock)
                file = self.folder / "pipeline.yaml"
                file.write_text(PIPELINE.format(url=self.url, on_expired="gap", start="trim_horizon"))
                pipeline = check(file, {}).pipeline
                assert pipeline is not None
                (stream,) = await assemble(pipeline, options, lambda _event: None, ObservableEvent(), stack)
                return await asyncio.wait_for(run_shard(shard, stream.start, stream.parts), 120)

        return asyncio.run(run())

    def unseal_last(self) -> None:
        """The function ``unseal_last`` on this folder."""
        unseal_last(self.folder)

    def manifests(self) -> list[Manifest]:
        files = sorted((self.folder / "state" / "app" / "commits").rglob("0*.json"))
        return [decode(file.read_bytes(), file.name) for file in files]


def sealed(records: int) -> Callable[[events.Event], bool]:
    return lambda event: isinstance(event, events.UnitSealed) and sum(count for _, count in event.outcomes) >= records


def unseal_last(folder: Path) -> None:
    """Make the last unit look as if its worker had died after its intent and before its first file."""
    file = max((folder / "state" / "app" / "commits").rglob("0*.json"))
    manifest = decode(file.read_bytes(), file.name)
    file.write_bytes(encode(msgspec.structs.replace(manifest, state=State.INTENT, seal="", sealed_by="", sealed_at="")))
    for entry in manifest.files:
        for written in folder.rglob(Path(entry.key).name):
            written.unlink()
    for checkpoint in (folder / "state" / "app" / "checkpoints").rglob("*.json"):
        checkpoint.unlink()
