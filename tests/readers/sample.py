"""Writes what the readers read, by real runs: ``python -m tests.readers.sample FOLDER``. The rows are those of ``values.py``."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from typer.testing import CliRunner

from stream.cli.main import app
from stream.sink.encode import ROW_GROUP_ROWS, Encoder
from tests.readers.values import FLAT, NESTED, rows

BAD_RECORDS = '{"id": "x"}\n{"id": \n'
FLAT_SINKS: list[dict[str, Any]] = [
    {"name": "byplace", "partition_by": ["place"]},
    {"name": "bykey", "partition_by": [{"key": "place"}, {"month": "strftime(at, '%Y-%m')"}]},
    {"name": "csv", "format": "csv"},
]
NESTED_SINKS: list[dict[str, Any]] = [
    {"name": "parquet"},
    *({"name": f"parquet-{codec}", "compression": codec} for codec in ("gzip", "snappy", "none")),
    {"name": "ndjson", "format": "ndjson"},
    {"name": "ndjson-zstd", "format": "ndjson", "compression": "zstd"},
    *({"name": f"avro-{codec}", "format": "avro", "compression": codec} for codec in ("deflate", "zstd", "snappy", "none")),
    *({"name": f"arrow-{codec}", "format": "arrow", "compression": codec} for codec in ("zstd", "lz4", "none")),
]


def record(value: Any) -> Any:
    """What a producer sends."""
    if isinstance(value, dict):
        return {key: record(each) for key, each in value.items()}
    if isinstance(value, list):
        return [record(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, Decimal) else value.isoformat() if isinstance(value, date) else value


def run(folder: Path, application: str, schema: dict[str, str], sinks: list[dict[str, Any]]) -> None:
    """One run that reads ``in`` beside ``folder`` and ends."""
    folder.mkdir()
    definition = {
        "application": application,
        "source": {"s3": {"url": "file:../in"}, "schema": schema},
        "sinks": sinks,
        "state": "file:state",
        "metrics": {"port": 0},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(definition, allow_unicode=True, sort_keys=False))
    done = CliRunner().invoke(app, ["run", str(folder / "pipeline.yaml"), "--once"])
    assert done.exit_code == 0, done.output


def large() -> pl.DataFrame:
    """Three row groups that statistics tell apart; in one of them a NaN, and a text that is too long for statistics."""
    number = pl.int_range(2 * ROW_GROUP_ROWS + 1000, dtype=pl.Int64, eager=True)
    group = number // ROW_GROUP_ROWS
    long = pl.when(pl.Series(number % ROW_GROUP_ROWS == 7) & pl.Series(group == 1)).then(pl.lit("z" * 5000))
    return pl.DataFrame({"n": number}).with_columns(
        x=pl.when((number % ROW_GROUP_ROWS == 3) & (group == 1)).then(float("nan")).otherwise(group.cast(pl.Float64)),
        zero=pl.when(number % 2 == 0).then(-0.0).otherwise(0.0),
        t=long.otherwise(pl.lit("t") + group.cast(pl.String)),
        u=pl.lit(2**63, pl.UInt64) - 1 + group.cast(pl.UInt64),
        s=pl.when(number % 1000 == 0).then(None).otherwise(group.cast(pl.Int8) - 1),
    )


def write(folder: Path) -> None:
    """All files, below ``folder``, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.ndjson").write_text("".join(json.dumps(_sent(row)) + "\n" for row in rows()) + BAD_RECORDS)
    for application, schema, sinks in (("flat", FLAT, FLAT_SINKS), ("nested", FLAT | NESTED, NESTED_SINKS)):
        run(folder / application, application, schema, [{"s3": {"url": f"file:{each['name']}"} | each} for each in sinks])
    catalog = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db"}
    iceberg = {"location": "file:table", "table": "lake.rows", "catalog": catalog, "partition_by": ["day(at)", "place", "flag"]}
    run(folder / "iceberg", "iceberg", FLAT | NESTED, [{"iceberg": iceberg}])
    odd = {"clock": pl.DataFrame({"clock": [time(12, 30)]}), "ancient": pl.DataFrame({"day": [date(1, 1, 1), date(1582, 10, 14)]})}
    for name, frame in ({"large/large": large()} | {f"odd/{name}": frame for name, frame in odd.items()}).items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(Encoder().encode(frame))


def _sent(row: dict[str, Any]) -> dict[str, Any]:
    at = row["at_ms"]
    return record(row) | {"at_ms": None if at is None else round(at.timestamp() * 1000)}


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
