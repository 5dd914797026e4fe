"""``make backfill-check``: the published flights, streamed with a kill and a reshard, and read from objects, give the same rows.

As ``python -m tests.backfill_check [--rows N]``. Exit code 0: the same rows; 1: they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import re
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import polars as pl

from stream.cli.demo import Demo
from stream.cli.run import carry_out
from stream.local.flights import flights_table
from stream.pipeline.checks.lint import check
from stream.worker.assemble import WorkerOptions
from stream.worker.sources.reading import Reading

MASK_KEY = "backfill-check"


def over_objects(text: str, url: str) -> str:
    """The flights pipeline with the objects at ``url`` for its source."""
    changed, times = re.subn(r"  kinesis:\n    stream: .*\n    start: .*\n", f'  s3: {{url: "{url}"}}\n', text)
    assert times == 1
    return changed


def write_objects(flights: pl.DataFrame, folder: Path, count: int) -> None:
    """The flights as compressed lines in ``count`` objects."""
    folder.mkdir(parents=True)
    step = -(-flights.height // count)
    for number in range(count):
        body = flights.slice(number * step, step).write_ndjson().encode()
        (folder / f"{number:03d}.json.gz").write_bytes(gzip.compress(body, 1))


def backfill(flights: pl.DataFrame, folder: Path, mask_key: str) -> Path:
    """Read the flights from objects; where the rows are."""
    write_objects(flights, folder / "in", 12)
    settings = {"LAKE": "file:./lake", "STATE": "file:./state", "METRICS_PORT": "0", "MASK_KEY": mask_key, "FLUSH_BYTES": "16MiB"}
    path = folder / "pipeline.yaml"
    path.write_text(over_objects((files("stream.data") / "flights.yaml").read_text(), "file:./in"))
    result = check(path, settings)
    assert result.pipeline is not None, [finding.render() for finding in result.findings]
    end = carry_out(result.pipeline, WorkerOptions(folder, settings, 60.0, os.cpu_count() or 1, reading=Reading()), folder / "result.json")
    assert end.code == 0, end.error
    return folder / "lake"


def rows(lake: Path) -> pl.DataFrame:
    """Every row without the columns that say where it came from, in one order."""
    frame = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in sorted(lake.rglob("*.parquet"))])
    return frame.select(sorted(name for name in frame.columns if not name.startswith("_"))).sort(pl.all())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=336_776)
    flights = flights_table().head(parser.parse_args().rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "streamed").mkdir()
        if not asyncio.run(Demo(folder / "streamed", flights, 4, 1, mask_key=MASK_KEY).run(keep=False)):
            return 1
        begun = time.monotonic()
        lake = backfill(flights, folder / "objects", MASK_KEY)
        seconds = time.monotonic() - begun
        streamed, read = rows(folder / "streamed" / "lake" / "flights"), rows(lake)
    same = streamed.equals(read)
    verdict = "the same rows" if same else "OTHER ROWS"
    sys.stdout.write(
        f"{flights.height:,} flights from objects in {seconds:.1f} s: {read.height:,} rows, streamed {streamed.height:,}: {verdict}\n"
    )
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
