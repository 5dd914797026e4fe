"""Sealed units, the table that they are loaded into, and what must be in it."""

# ruff: noqa: S608 - the names of tables are our own
from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from stream.aws.session import AwsSession
from stream.events import Event
from stream.storage.open import open_store
from stream.storage.prefixed import PrefixedStore
from stream.worker.opening.stores import Stores
from tests.redshift.double.server import Double
from tests.redshift.loader import open_loader
from tests.sealed import START, Sealed, shard_id

PIPELINE = """\
application: {application}
source:
  kinesis: {kinesis}
  schema: {{n: int64, kind: string, tags: list<string>?, at: timestamp(ms)?}}
stages:
  - filter: n % 7 <> 0
{stages}
sinks:
  - redshift:
      staging: s3://{bucket}/staging/
      table: {table}
      database: dev
      workgroup: analytics
      iam_role: arn:aws:iam::123456789012:role/loader
      every: 1s
{options}
state: s3://{bucket}/state/
"""
UPSERT = "      mode: upsert\n      keys: [kind]\n"
DELETES = f"{UPSERT}      deletes: gone\n"
VERSIONED = f"{DELETES}      version: rank\n"
RANK = '  - derive: {rank: "n * 7 % 11"}\n'
GONE = '  - derive: {gone: "n % 5 = 0"}'


@dataclass
class World:
    """One table, one commit log and one bucket. ``heard`` keeps the events of loaders in this process."""

    double: Double
    s3: Any
    bucket: str
    table: str
    options: str = ""
    stages: str = ""
    kinesis: str = "{stream: events}"
    rng: Random = field(default_factory=Random)
    kinds: int = 12
    heard: list[Event] = field(default_factory=list)
    sealed: Sealed | None = None
    next: dict[int, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return PIPELINE.format(
            application="app",
            bucket=self.bucket,
            table=self.table,
            options=self.options,
            kinesis=self.kinesis,
            stages=self.stages + self._gone,
        )

    @property
    def _gone(self) -> str:
        return (RANK if "version: rank" in self.options else "") + (GONE if "deletes:" in self.options else "")

    def environment(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL_REDSHIFT_DATA": self.double.url}

    async def _open(self) -> Sealed:
        """The application, whose units the production code seals; opened again, it continues with the current definition."""
        sealed = await Sealed.open(text=self.text, state=open_store(f"s3://{self.bucket}/state", AwsSession()))
        inner = PrefixedStore(sealed.root, "app/")
        targets = {"redshift": open_store(f"s3://{self.bucket}/staging/", AwsSession())}
        targets |= {"rejects": PrefixedStore(inner, "rejects/"), "ledger": PrefixedStore(inner, "ledger/v1/")}
        sealed.stores = Stores(inner, targets)
        if self.sealed is not None:
            sealed.heads, sealed.source, sealed.clock = self.sealed.heads, self.sealed.source, self.sealed.clock
        return sealed

    def redefine(self) -> None:
        """Continue with a changed pipeline."""
        self.sealed = asyncio.run(self._open())

    def seal(self, units: Mapping[int, int], rows: int = 20) -> None:
        """Seal more units, ``units`` being their count by number of shard, each of ``rows`` records."""
        asyncio.run(self._seal(units, rows))

    async def _seal(self, units: Mapping[int, int], rows: int) -> None:
        self.sealed = self.sealed or await self._open()
        for shard, count in units.items():
            for _ in range(count):
                first = self.next.get(shard, 1)
                self.next[shard] = first + rows
                await self.sealed.unit(shard, first, rows, self._payload)

    def _payload(self, n: int) -> bytes:
        tags = self.rng.choice([None, [], ["a", "ü'\";--"]])
        row = {"n": n, "kind": f"k{self.rng.randrange(self.kinds)}", "tags": tags, "at": self.rng.choice([None, 1_700_000_000_000 + n])}
        return b"{broken" if self.rng.random() < 0.05 else json.dumps(row).encode()

    def end(self, shard: int) -> None:
        assert self.sealed is not None
        asyncio.run(self.sealed.end(shard))

    def load(self, *, leased: bool = True, worker: str = "tester", steps: int = 1, between: Callable[[], None] | None = None) -> bool:
        """Let a loader in this process take ``steps`` steps, ``between`` being called after the first; whether the last succeeded."""
        return asyncio.run(self._load(leased, worker, steps, between))

    async def _load(self, leased: bool, worker: str, steps: int, between: Callable[[], None] | None) -> bool:
        async with AsyncExitStack() as stack:
            loader = await open_loader(self.text, Path(), worker, self.heard.append, stack, leased=leased)
            succeeded = False
            for step in range(steps):
                if step == 1 and between is not None:
                    await asyncio.to_thread(between)
                succeeded = await loader.attempt()
            await loader.finish()
            return succeeded

    def load_at_once(self, loaders: int) -> None:
        """Let several loaders without leases take a step each at the same time."""

        async def load() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(loaders):
                    group.create_task(self._load(False, f"tester-{number}", 1, None))

        asyncio.run(load())

    def load_until_done(self, most: int = 40) -> None:
        """Load without faults until nothing is left to load."""
        for _ in range(most):
            if self.load(leased=False, worker="undisturbed"):
                return
        raise AssertionError(f"loading does not end: {self.heard[-5:]}")

    def manifests(self) -> list[dict[str, Any]]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="state/app/commits/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return [json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()) for key in keys]

    def sealed_rows(self) -> pl.DataFrame:
        """Every row of every sealed unit's staged files."""
        frames = []
        for manifest in self.manifests():
            for file in manifest.get("files", []) if manifest["state"] == "sealed" else []:
                if file["sink"] == "redshift":
                    body = self.s3.get_object(Bucket=self.bucket, Key=f"staging/{file['key']}")["Body"].read()
                    frames.append(pl.read_parquet(io.BytesIO(body)))
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    def expected(self, rows: pl.DataFrame | None = None) -> list[tuple[Any, ...]]:
        """What the table must hold: all sealed ``rows``, or the last of each key (by version, if there is one) that does not delete it."""
        rows = self.sealed_rows() if rows is None else rows
        if "mode: upsert" in self.options:
            order = [pl.col("_sequence").str.zfill(60), "_subsequence", "_line"]
            order = ["rank", *order] if "version:" in self.options else order
            rows = rows.sort(order).unique("kind", keep="last")
        if "deletes:" in self.options:
            rows = rows.remove("gone")
        return sorted(rows.select("_shard", "_sequence", "_subsequence", "n", "kind").rows())

    def table_rows(self) -> list[tuple[Any, ...]]:
        return sorted(self.query(f'SELECT _shard, _sequence, _subsequence, n, kind FROM "{self.table}"'))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows from PostgreSQL itself, past the double."""

        async def ask() -> list[tuple[Any, ...]]:
            connection = await self.double.connect()
            try:
                return [tuple(row) for row in await connection.fetch(sql)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def ledger(self) -> dict[str, int]:
        rows = self.query(f'SELECT shard, MAX("last") FROM "{self.table}__loads" GROUP BY shard')
        return {shard: int(last) for shard, last in rows}

    def heads(self) -> dict[str, int]:
        """Where each shard's sealed chain ends."""
        assert self.sealed is not None
        return {name: head.position for name, head in self.sealed.heads.items()}

    def assert_exactly_once(self) -> None:
        """Rows in the table equal rows in sealed units, none twice; the ledger covers each shard without gap or overlap."""
        sealed = self.sealed_rows()
        assert self.table_rows() == self.expected(sealed)
        columns = '"after", "last", shard, "rows"'
        rows = self.query(f'SELECT {columns} FROM "{self.table}__loads" ORDER BY shard, "after"')
        for before, after in pairwise(rows):
            assert before[2] != after[2] or before[1] == after[0], "the load ledger has a gap or an overlap"
        assert sum(row[3] for row in rows) == sealed.height


__all__ = ["DELETES", "PIPELINE", "START", "UPSERT", "VERSIONED", "World", "shard_id"]
