"""How long a shard waits when its worker ends: ``python benchmarks/handover.py [--rounds 4] [--shards 8] [--kcl 2.5.8 --kcl 3.1.3]``.

Two workers share a stream. One gets SIGTERM, or SIGKILL; for each of its shards the time is taken until the other has read the next
record. With ``--kcl`` the same is done with workers of the Java KCL (Java, Node.js), on the same Kinesis and the same DynamoDB.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import boto3  # noqa: E402 - behind the path

from stream import events  # noqa: E402
from stream.cli.run import run_pipeline  # noqa: E402
from stream.local.moto import moto  # noqa: E402
from tests.contract.peers import kinesis_local  # noqa: E402
from tests.interop.java import JavaWorker  # noqa: E402

PIPELINE = """
application: {application}
source:
  kinesis: {{stream: {stream}}}
  decode: raw
sinks:
  - s3: {{url: "file:lake/"}}
flush: {{age: 10s}}
coordination:
  native: {{failover: {failover}s}}
metrics: {{port: 0}}
state: "file:state/"
"""
PATIENCE = 240.0
_NUMBERS = count()


def worker_main(pipeline: str, notes: str) -> None:
    """A worker that records when it reads the first records of each shard."""
    fresh: set[str] = set()
    with Path(notes).open("a", buffering=1) as file:

        def note(event: events.Event) -> None:
            if isinstance(event, events.ShardStarted):
                fresh.add(event.shard)
            elif isinstance(event, events.PageReceived) and event.records and event.shard in fresh:
                fresh.discard(event.shard)
                file.write(json.dumps({"at": time.time(), "shard": event.shard, "what": "records"}) + "\n")

        run_pipeline(Path(pipeline), drain=25.0, threads=None, listeners=(note,))


class OurWorker:
    """One process of ``worker_main``."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        name = f"ours-{next(_NUMBERS)}"
        self.notes = folder / f"{name}.notes"
        with (folder / f"{name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker", str(folder / "pipeline.yaml"), str(self.notes)],
                env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
                stderr=log,
            )
        self.mark = f"/{self.process.pid}-"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


class OurJava(JavaWorker):
    """A Java worker with the same interface as ``OurWorker``."""

    def __init__(self, folder: Path, version: str, environment: dict[str, str], stream: str, failover: int) -> None:
        self.mark = f"java-{next(_NUMBERS)}"
        super().__init__(folder, version, self.mark, environment, stream, stream, failover * 1000)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


class Bench:
    """A stream that keeps receiving records, and the table of its leases."""

    def __init__(self, environment: dict[str, str], shards: int, stack: ExitStack) -> None:
        keys = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.kinesis = boto3.client("kinesis", endpoint_url=environment["AWS_ENDPOINT_URL_KINESIS"], **keys)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=environment["AWS_ENDPOINT_URL_DYNAMODB"], **keys)
        stack.callback(self.kinesis.close)
        stack.callback(self.dynamodb.close)
        self.stream = f"handover-{next(_NUMBERS)}"
        self.kinesis.create_stream(StreamName=self.stream, ShardCount=shards)
        self.shards = shards
        width = 2**128 // shards
        self.keys = [str(at * width + 1) for at in range(shards)]

    def produce(self) -> None:
        """One record for each shard."""
        entries = [{"Data": b"x" * 100, "PartitionKey": "k", "ExplicitHashKey": key} for key in self.keys]
        self.kinesis.put_records(StreamName=self.stream, Records=entries)

    def owned(self) -> dict[str, str]:
        """Owners by shard; empty while there is no table."""
        try:
            rows = self.dynamodb.scan(TableName=self.stream, ConsistentRead=True)["Items"]
        except self.dynamodb.exceptions.ResourceNotFoundException:
            return {}
        return {row["leaseKey"]["S"]: row["leaseOwner"]["S"] for row in rows if "leaseOwner" in row}

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Produce until ``condition`` holds."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > PATIENCE:
                sys.exit(f"{what} took more than {PATIENCE:.0f} s; owners: {self.owned()}")
            self.produce()
            time.sleep(0.1)  # noqa: TID251 - a benchmark has no clock of its own

    def measure(self, start: Callable[[], Any], rounds: int, number: signal.Signals) -> list[float]:
        """Seconds that each shard waited that changed its worker, over ``rounds`` rounds."""
        waited: list[float] = []
        workers = [start(), start()]
        try:
            for _ in range(rounds):
                waited += self._one_round(*workers, number)
                workers = [workers[1], start()]
        finally:
            for worker in workers:
                worker.kill()
        return waited

    def _one_round(self, victim: Any, other: Any, number: signal.Signals) -> list[float]:
        self.until(lambda: self._shared([victim, other]), "sharing the shards")
        theirs = {shard for shard, owner in self.owned().items() if victim.mark in owner}
        at = time.time()
        if number is signal.SIGTERM:
            victim.terminate()
        else:
            victim.kill()
        self.until(lambda: theirs <= first_reads(other.notes, at).keys(), "the hand-over")
        found = first_reads(other.notes, at)
        victim.process.wait(PATIENCE)
        return [found[shard] - at for shard in theirs]

    def _shared(self, workers: list[Any]) -> bool:
        owners = list(self.owned().values())
        each = [sum(worker.mark in owner for owner in owners) for worker in workers]
        started = [len(first_reads(worker.notes, 0.0)) for worker in workers]
        return sum(each) == self.shards and abs(each[0] - each[1]) <= 1 and all(started)


def first_reads(notes: Path, since: float) -> dict[str, float]:
    """When each shard's first records after ``since`` were read."""
    found: dict[str, float] = {}
    for line in notes.read_text().splitlines(keepends=True) if notes.exists() else []:
        if line.endswith("\n"):
            note = json.loads(line)
            if note["what"] == "records" and note["at"] > since:
                found.setdefault(note["shard"], note["at"])
    return found


def formatted(kind: str, number: signal.Signals, waited: list[float]) -> str:
    waited = sorted(waited)
    quantile = waited[min(len(waited) - 1, int(0.95 * len(waited)))]
    figures = f"median {statistics.median(waited):.2f} s, 95 % {quantile:.2f} s, worst {waited[-1]:.2f} s"
    return f"{kind:<12} {number.name}: {figures}, {len(waited)} shards"


def keep(path: Path, run: dict[str, Any]) -> None:
    """Add a run to ``path``."""
    with path.open("a") as file:
        file.write(json.dumps(run) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--failover", type=int, default=10)
    parser.add_argument("--kcl", action="append", default=[], choices=["2.5.8", "3.1.3"])
    parser.add_argument("--only-kcl", action="store_true")
    parser.add_argument("--signal", action="append", default=[], choices=["SIGTERM", "SIGKILL"], help="both where not given")
    parser.add_argument("--json", type=Path, help="file to which one line is added for each kind and signal")
    parser.add_argument("--worker", nargs=2, metavar=("PIPELINE", "NOTES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker_main(*given.worker)
        return
    with ExitStack() as stack:
        kinesis, dynamodb = stack.enter_context(kinesis_local()), stack.enter_context(moto())
        environment = {"AWS_ENDPOINT_URL_KINESIS": kinesis.url, "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url}
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        for kind in [*([] if given.only_kcl else ["stream"]), *given.kcl]:
            for number in (signal.Signals[name] for name in given.signal or ("SIGTERM", "SIGKILL")):
                bench = Bench(environment, given.shards, stack)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                text = PIPELINE.format(application=bench.stream, stream=bench.stream, failover=given.failover)
                (folder / "pipeline.yaml").write_text(text)
                start = starter(kind, folder, environment, bench.stream, given.failover)
                name = kind if kind == "stream" else f"KCL {kind}"
                waited = bench.measure(start, given.rounds, number)
                print(formatted(name, number, waited), flush=True)
                if given.json:
                    keep(given.json, {"kind": name, "signal": number.name, "failover": given.failover, "seconds": sorted(waited)})


def starter(kind: str, folder: Path, environment: dict[str, str], stream: str, failover: int) -> Callable[[], Any]:
    """Starts one more worker of that kind."""
    if kind == "stream":
        return lambda: OurWorker(folder, environment)
    return lambda: OurJava(folder, kind, environment, stream, failover)


if __name__ == "__main__":
    main()
