"""A directory with objects, a pipeline that reads them, and its results: replay without a network."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from stream.audit.verify import Scope, Verifier
from stream.cli.run import carry_out
from stream.clock import SystemClock
from stream.operations.opening import chains_of, open_evidence
from stream.pipeline.checks.lint import check_content
from stream.pipeline.model import Pipeline
from stream.worker.assemble import WorkerOptions
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.sources.dead_letters import DeadLetters
from stream.worker.sources.reading import Reading

PIPELINE = """
application: replay
source:
  s3: {{url: "file:./in", name: archive{s3}}}
  decode: {decode}
  schema: {{id: int64, kind: string, value: {value}}}
stages:
  - derive: {{doubled: value * 2}}
{stages}
sinks:
  - s3: {{url: "file:./{lake}", partition_by: [kind]}}
flush: {{rows: {rows}}}
rejects: {{max_ratio: {max_ratio}, min_records: {min_records}{rejects}}}
metrics: {{port: 0}}
state: "file:./{state}"
{more}
"""


def row(number: int) -> dict:
    return {"id": number, "kind": "abc"[number % 3], "value": None if number % 7 == 0 else number % 100}


@dataclass
class Place:
    """A folder with objects in ``in``; ``run`` runs the pipeline over them. ``settings`` and ``changes`` replace parts of the pipeline."""

    folder: Path
    settings: dict = field(default_factory=dict)

    def lines(self, name: str, numbers, *, render=lambda number: json.dumps(row(number)), pack=lambda body: body) -> Path:
        """An object of one record for each number."""
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack("".join(f"{render(number)}\n" for number in numbers).encode()))
        return path

    def text(self, **changes) -> str:
        settings = {
            "s3": "",
            "decode": "json",
            "value": "int64?",
            "stages": "",
            "rows": 500,
            "max_ratio": 0.9,
            "min_records": 1_000_000,
            "rejects": "",
            "lake": "lake",
            "state": "state",
            "more": "",
        }
        return PIPELINE.format(**(settings | self.settings | changes))

    def file(self, name: str = "pipeline.yaml", **changes) -> Path:
        path = self.folder / name
        path.write_text(self.text(**changes))
        return path

    def pipeline(self, **changes) -> Pipeline:
        result = check_content(self.text(**changes).encode(), "pipeline.yaml", self.folder, {})
        assert result.pipeline is not None, [finding.render() for finding in result.findings]
        return result.pipeline

    def run(self, reading: Reading | None = None, listeners=(), pipeline: Pipeline | None = None, **changes):
        options = WorkerOptions(self.folder, {}, 30.0, 2, listeners, reading=reading or Reading())
        return carry_out(pipeline or self.pipeline(**changes), options, self.folder / "result.json")

    def letters(self, **changes) -> DeadLetters:
        pipeline = self.pipeline(**changes)
        stores = Stores.open(pipeline, self.folder, session_of(pipeline))
        name = pipeline.source.kinesis.stream
        return DeadLetters(name, stores.state, stores.targets["rejects"], pipeline.rejects.redrive, SystemClock())

    def redrive(self, where=None, limit=None, worker="w", **changes):
        claimed = asyncio.run(self.letters(**changes).redrive(where, limit, worker))
        end = self.run(Reading(letters=True), **changes)
        return claimed, end

    def table(self, **changes) -> pl.DataFrame:
        return asyncio.run(self.letters(**changes).table())

    def result(self) -> dict:
        return json.loads((self.folder / "result.json").read_text())

    def rows(self, lake: str = "lake", *, lineage: bool = True) -> pl.DataFrame:
        files = sorted((self.folder / lake).rglob("*.parquet"))
        frame = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in files]) if files else pl.DataFrame()
        kept = frame if lineage else frame.select(name for name in frame.columns if not name.startswith("_"))
        return kept.sort(pl.all())

    def proof(self, **changes) -> list:
        """Findings of every chain; empty if every record is accounted for, once."""

        async def verify() -> list:
            from contextlib import AsyncExitStack

            pipeline, found = self.pipeline(**changes), []
            for chain in await chains_of(pipeline, self.folder):
                async with AsyncExitStack() as stack:
                    evidence, _ = await open_evidence(pipeline, self.folder, SystemClock(), stack, with_stream=True, chain=chain)
                    found += (await Verifier(evidence, Scope(), SystemClock()).run()).findings
            return found

        return asyncio.run(verify())
