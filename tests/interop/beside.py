"""One stream on kinesis-local and one lease table, shared by our workers and those of the Java KCL."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stream.local.kpl import UserRecord, aggregate
from tests.chaos.truth import read_stream
from tests.chaos.workers import Worker
from tests.chaos.world import World
from tests.interop.java import JavaWorker

NATIVE = """
coordination:
  native: {{table: {table}, failover: 6s, look: 300ms}}
"""
Place = tuple[str, int, int]


@dataclass
class Beside:
    """``path``: our pipeline, whose lease table has the name of the Java application."""

    world: World
    dynamodb: Any
    version: str
    table: str
    path: Path
    java: list[JavaWorker] = field(default_factory=list)
    known: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Every row that was seen so far, as it was last, by table and lease key: ours are removed soon after their shard has ended."""

    def produce(self, count: int) -> None:
        """Put ``count`` user records, some of them in aggregates whose records all belong to the aggregate's shard."""
        world, entries, made = self.world, [], 0
        while made < count:
            users = 1 if world.rng.random() < 0.5 else world.rng.randrange(2, 5)
            key = f"k{world.rng.randrange(1000)}"
            rows = [
                json.dumps({"id": world.put_so_far + made + at, "kind": world.rng.choice("ab"), "value": 1}).encode() for at in range(users)
            ]
            data = rows[0] if users == 1 else aggregate([UserRecord(key, None, row) for row in rows])
            entries.append({"Data": data, "PartitionKey": key})
            made += users
        world.put(entries, made)

    def start_java(self, **options: Any) -> JavaWorker:
        environment = self.world.environment
        name = f"java-{len(self.java)}"
        worker = JavaWorker(self.world.folder, self.version, name, environment, self.world.stream, self.table, **options)
        self.java.append(worker)
        return worker

    def start_ours(self) -> Worker:
        worker = self.world.start(self.path)
        worker.until(lambda: '"event":"worker_started"' in worker.said())
        return worker

    # --- what is to be seen -----------------------------------------------------------------------------------------------

    def rows(self, table: str | None = None) -> dict[str, dict[str, Any]]:
        """Lease rows as DynamoDB has them, by lease key."""
        items = self.dynamodb.scan(TableName=table or self.table, ConsistentRead=True)["Items"]
        found = {row["leaseKey"]["S"]: row for row in items}
        self.known.setdefault(table or self.table, {}).update(found)
        return found

    def reports(self) -> list[str]:
        """Workers that KCL 3.x knows of."""
        items = self.dynamodb.scan(TableName=f"{self.table}-WorkerMetricStats", ConsistentRead=True)["Items"]
        return [item["wid"]["S"] for item in items]

    def owners(self) -> Counter[str]:
        """How many open shards ``java``, ``ours`` and ``nobody`` have."""
        rows = [row for row in self.rows().values() if row["checkpoint"]["S"] != "SHARD_END"]
        names = [row["leaseOwner"]["S"] if "leaseOwner" in row else "" for row in rows]
        return Counter("nobody" if not name else "java" if name.startswith("java-") else "ours" for name in names)

    def lake(self) -> list[Place]:
        """Every record that our workers wrote."""
        found = []
        for body in self.world.objects("lake/").values():
            rows = pq.read_table(io.BytesIO(body), partitioning=None).to_pylist()
            found += [(row["_shard"], int(row["_sequence"]), row["_subsequence"]) for row in rows]
        return found

    def noted(self, what: str = "records") -> list[Place]:
        """Every record that Java's processors received, or that they have ``checkpointed``."""
        return [place[:3] for worker in self.java for place in worker.records(what)]

    def truth(self) -> set[Place]:
        """Every record in the stream."""
        shards = read_stream(self.world.client, self.world.stream)
        return {(shard.shard_id, each.sequence, each.subsequence) for shard in shards.values() for each in shard.records}

    def complete(self) -> bool:
        """Whether each record was processed by one of the two."""
        there = {*self.lake(), *self.noted()}
        return len(there) >= self.world.put_so_far and self.truth() <= there

    def doubled(self) -> dict[Place, int]:
        """Records that were processed more than once. What Java received and then lost the lease of does not count."""
        return {place: count for place, count in Counter(self.lake() + self.noted("checkpointed")).items() if count > 1}


def shape(row: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Types of the KCL's attributes by name, without ours, whose names begin with ``sx``."""
    return {name: next(iter(value)) for name, value in row.items() if not name.startswith("sx")}
