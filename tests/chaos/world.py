"""One stream, one pipeline and one place for its results, with real worker processes over them.

The stream is the emulator's, which tests/contract/test_kinesis.py holds to kinesis-local; S3 is moto's.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from stream.local.kpl import UserRecord, aggregate
from tests.chaos.oracle import Definition, Judgement, Oracle
from tests.chaos.truth import Record, read_stream
from tests.chaos.workers import Worker, clean

PIPELINE = """
application: chaos
source:
  kinesis: {{stream: {stream}, start: {start}}}
  decode: json
  schema: {{id: int64, kind: string, value: int64?, note: string?}}
stages:
  - filter: {keep}
  - derive: {{doubled: value * 2}}
{stages}
sinks:
  - s3: {{url: "{lake}", name: {sink}, partition_by: [{partition}]}}
flush: {{age: {age}, bytes: 16KiB, rows: 5000}}
memory: {{budget: {budget}}}
rejects: {{min_records: {min_records}}}
metrics: {{port: 0}}
state: "{place}state/"
"""

KNOWN = Definition("value IS NOT NULL", lambda row: row["value"] is not None)
LARGE = Definition("value > 50", lambda row: (row["value"] or 0) > 50, partition="size")
BROKEN = (b"", b"{", b"\xff\xfe", b"[1]", b'{"id": "x", "kind": "a"}', b'{"kind": "a"}', b'{"id": 1, "kind": "a", "value": 1.5}')


@dataclass
class World:
    """``folder`` holds pipeline files, logs and, unless ``bucket`` is set, state and lake."""

    folder: Path
    client: Any
    stream: str
    url: str
    environment: Mapping[str, str]
    seed: int
    s3: Any = None
    bucket: str = ""
    put_so_far: int = 0
    workers: list[Worker] = field(default_factory=list)
    fetched: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Objects of the bucket that were read, by key and ETag."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.place = f"s3://{self.bucket}/" if self.bucket else "file:"

    # --- the stream -------------------------------------------------------------------------------------------------------

    def produce(self, count: int) -> None:
        """``count`` user records: plain, in aggregates (some in a shard that is not theirs), and broken."""
        entries, made = [], 0
        while made < count:
            users = 1 if self.rng.random() < 0.6 else self.rng.randrange(2, 7)
            records = [UserRecord(f"k{self.rng.randrange(50)}", None, self._data(made + at)) for at in range(users)]
            data = records[0].data if users == 1 else aggregate(records)
            entries.append({"Data": data, "PartitionKey": records[0].partition_key})
            made += users
        self.put(entries, made)

    def put(self, entries: Sequence[Mapping[str, Any]], records: int) -> None:
        """Put Kinesis records that hold so many user records."""
        for start in range(0, len(entries), 500):
            reply = self.client.put_records(StreamName=self.stream, Records=entries[start : start + 500])
            assert reply["FailedRecordCount"] == 0
        self.put_so_far += records

    def put_all(self, payloads: Sequence[bytes]) -> None:
        """Put each payload as a record of its own."""
        self.put([{"Data": data, "PartitionKey": f"k{at}"} for at, data in enumerate(payloads)], len(payloads))

    def _data(self, number: int) -> bytes:
        if self.rng.random() < 0.06:
            return self.rng.choice(BROKEN)
        value = None if self.rng.random() < 0.2 else self.rng.randrange(100)
        note = self.rng.choice([None, "plain", "größer ✓", "x" * self.rng.randrange(80)])
        row = {"id": number, "kind": self.rng.choice("abc"), "value": value, "note": note}
        return json.dumps(row, ensure_ascii=False).encode()

    def split(self, which: int = 0) -> None:
        """Split the open shard at index ``which`` in the middle of its hash range."""
        shard = self.open_shards()[which]
        middle = (int(shard["HashKeyRange"]["StartingHashKey"]) + int(shard["HashKeyRange"]["EndingHashKey"])) // 2
        self.client.split_shard(StreamName=self.stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))

    def merge(self, which: int = 0) -> None:
        """Merge the open shards at the indices ``which`` and ``which + 1``."""
        left, right = self.open_shards()[which : which + 2]
        self.client.merge_shards(StreamName=self.stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"])

    def shards(self) -> list[dict[str, Any]]:
        """All shards as the service lists them."""
        found: list[dict[str, Any]] = self.client.list_shards(StreamName=self.stream)["Shards"]
        return found

    def open_shards(self) -> list[dict[str, Any]]:
        """Open shards in the order of their hash ranges."""
        found = [shard for shard in self.shards() if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(found, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def misbehave(self, *faults: Mapping[str, Any]) -> None:
        """Script faults of the emulator for this stream."""
        script = [{"stream": self.stream, **fault} for fault in faults]
        self._faults("POST", json.dumps(script).encode())

    def faults_left(self) -> list[dict[str, Any]]:
        """Scripted faults of this stream that have not happened yet."""
        return [fault for fault in json.loads(self._faults("GET")) if fault["stream"] == self.stream]

    def _faults(self, method: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/_faults", data=body, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request) as reply:  # noqa: S310 - loopback
            answer: bytes = reply.read()
        return answer

    # --- workers ----------------------------------------------------------------------------------------------------------

    def pipeline(self, name: str = "pipeline", **changes: Any) -> Path:
        """A pipeline file; ``changes`` replace its settings."""
        settings = {
            "stream": self.stream,
            "start": "trim_horizon",
            "keep": KNOWN.mark,
            "partition": "kind",
            "stages": "",
            "age": "150ms",
            "budget": "256KiB",
            "min_records": 100_000,
            "place": self.place,
            "sink": "s3",
        }
        path = self.folder / f"{name}.yaml"
        settings |= changes
        path.write_text(PIPELINE.format(**{"lake": f"{settings['place']}lake/"} | settings))
        return path

    def start(self, path: Path, *options: str, **environment: str) -> Worker:
        """Start a worker; ``options`` are those of ``stream.testing.crash``."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker([*options, str(path)], {**self.environment, **environment}, log)
        self.workers.append(worker)
        return worker

    def operate(self, *arguments: str) -> Worker:
        """Start the command ``stream`` with ``arguments`` in a process of its own."""
        command = Worker(arguments, self.environment, self.folder / f"command-{len(self.workers)}.log", operator=True)
        self.workers.append(command)
        return command

    def crash(self, path: Path, at: str, **environment: str) -> None:
        """Run a worker that must die at the point ``at``."""
        worker = self.start(path, "--at", at, **environment)
        assert worker.exit() == -9, f"{at} was never reached:\n{worker.said()}"

    def finish(self, path: Path, *options: str, **environment: str) -> Worker:
        """Run a worker until everything in the stream is committed, then drain it."""
        worker = self.start(path, *options, **environment)
        worker.until(lambda: "worker_started" in worker.said() and self.committed())
        assert worker.drain() == 0, worker.said()
        assert clean(worker.said())
        return worker

    # --- results ----------------------------------------------------------------------------------------------------------

    def committed(self) -> bool:
        """Whether the log covers every record put and the end of every closed shard, and every shard's chain has begun."""
        manifests = self.manifests()
        records = sum(manifest.get("records", 0) for manifest in manifests if manifest["state"] == "sealed")
        if records < self.put_so_far:
            return False  # without asking the stream: this is asked again and again
        shards = self.shards()
        ends = sum(manifest["kind"] == "end" for manifest in manifests)
        closed = sum("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards)
        begun = sum(manifest["kind"] == "genesis" for manifest in manifests)
        return ends >= closed and begun >= len(shards)

    def manifests(self) -> list[dict[str, Any]]:
        """Every link of every chain, in no order."""
        return [json.loads(body) for body in self.objects(f"state/chaos/commits/{self.stream}/").values()]

    def ends(self) -> dict[str, int]:
        """The last sequence number that is committed, by shard; only of shards with records."""
        found: dict[str, int] = {}
        for unit in self.manifests():
            if unit["kind"] == "unit" and unit["state"] == "sealed":
                found[unit["shard"]] = max(found.get(unit["shard"], 0), int(unit["last"]))
        return found

    def sealed_units(self) -> int:
        """How many units are committed."""
        return sum(manifest["kind"] == "unit" and manifest["state"] == "sealed" for manifest in self.manifests())

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Everything under ``state/``, ``lake/`` and ``sea/``."""
        if self.bucket:
            pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return {entry["Key"]: self._body(entry["Key"], entry["ETag"]) for page in pages for entry in page.get("Contents", [])}
        found = {}
        for root in ("state", "lake", "sea"):
            base = self.folder / root
            start = self.folder / prefix if prefix else base
            for path in start.rglob("*") if start.is_relative_to(base) else ():
                key = path.relative_to(self.folder).as_posix()
                if path.is_file() and not key.startswith(f"{root}/.stream/"):
                    found[key] = path.read_bytes()
        return found

    def _body(self, key: str, tag: str) -> bytes:
        """What is at ``key`` with the ETag ``tag``, which is fetched once."""
        if (key, tag) not in self.fetched:
            answer = self.s3.get_object(Bucket=self.bucket, Key=key)
            tag = answer["ETag"]  # another, if it was replaced meanwhile
            self.fetched[key, tag] = answer["Body"].read()
        return self.fetched[key, tag]

    def judge(
        self,
        *definitions: Definition,
        leftovers: bool = False,
        whole: bool = True,
        begins: Callable[[Record], bool] = lambda _: True,
    ) -> Judgement:
        """The oracle's judgement of all objects against all records."""
        truth = read_stream(self.client, self.stream)
        return Oracle(self.objects(), truth, self.stream, definitions or (KNOWN,), leftovers=leftovers, whole=whole, begins=begins).judge()

    def exact(self, *definitions: Definition, **options: Any) -> Judgement:
        """Assert that the oracle finds nothing wrong."""
        verdict = self.judge(*definitions, **options)
        assert not verdict.problems, f"seed {self.seed}:\n" + "\n".join(verdict.problems[:20])
        return verdict
