"""The flights example on real flights, from bytes to rows."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest

from stream.batch import RAW_SCHEMA, Batch, Outcome
from stream.pipeline.checks.lint import check
from stream.pipeline.resources.fetching import fetch_resources
from stream.transform.engine import compile_chain
from tests.unit.pipeline.definitions import EXAMPLES

DATA = Path(str(files("stream.data"))) / "nycflights13"
PATH = EXAMPLES / "flights" / "pipeline.yaml"
ENV = {"MASK_KEY": "k"}


@pytest.fixture(scope="module")
def flights():
    return pl.read_parquet(DATA / "flights.parquet", n_rows=3000)


def batch(flights):
    lines = flights.write_ndjson().encode().splitlines()
    rows = len(lines)
    columns = [[str(index + 1) for index in range(rows)], [0] * rows, [0] * rows, ["k"] * rows, lines, [Outcome.PENDING] * rows]
    return Batch(pl.DataFrame(dict(zip(RAW_SCHEMA, columns, strict=True)), schema=RAW_SCHEMA), sum(map(len, lines)))


def test_each_departed_flight_is_written_with_its_looked_up_columns(flights):
    pipeline = check(PATH, ENV).pipeline
    fetched = asyncio.run(fetch_resources(pipeline, PATH.parent, ENV))
    chain = compile_chain(pipeline.source.decode, pipeline.source.record_schema(), pipeline.stages, fetched.resources, lambda: 0.0)
    result = chain.run(batch(flights), "shardId-000000000000")
    departed = flights.filter(pl.col("dep_time").is_not_null())
    assert set(result.settled["reason"]) == {"filtered"}
    assert result.frame["flight"].to_list() == departed["flight"].to_list()
    assert result.frame["airline"].null_count() == 0
    assert result.frame["origin_name"].unique().sort().to_list() == ["John F Kennedy Intl", "La Guardia", "Newark Liberty Intl"]
    weather = pl.read_parquet(DATA / "weather.parquet").select("origin", "time_hour", "temp")
    expected = departed.join(weather, on=["origin", "time_hour"], how="left", maintain_order="left")
    assert result.frame["temp"].to_list() == expected["temp"].to_list()
    assert result.frame["departure_month"].unique().to_list() == ["2013-01"]
    assert not set(result.frame["tailnum"].drop_nulls()) & set(flights["tailnum"].drop_nulls())
    assert set(fetched.digests) == set(fetched.resources.tables)
    assert len(fetched.digests) == 4
