"""Pipelines for tests: a minimal one, and the one from the design."""

from __future__ import annotations

import copy
from pathlib import Path

LEAST = {
    "application": "flights",
    "source": {"kinesis": {"stream": "flights"}, "schema": {"carrier": "string", "delay": "int64?"}},
    "sinks": [{"s3": {"url": "s3://lake/flights/"}}],
    "state": "s3://lake/_stream/",
}

DESIGNED = """\
application: flights
source:
  kinesis: {stream: flights, start: trim_horizon}
  decode: json
  schema:                          # name: type, "?" = may be null; unknown fields: reject | ignore | capture
    carrier: string
    tailnum: string?
    origin: string
    time_hour: timestamp
    dep_time: int64?
    dep_delay: int64?
    arr_delay: int64?
stages:
  - filter: dep_time IS NOT NULL
  - derive:
      month: strftime(time_hour, '%Y-%m')
      made_up: dep_delay - arr_delay
  - lookup: {table: reference/airlines.parquet, on: carrier, take: {airline: name}}
  - lookup: {table: reference/weather.parquet, on: [origin, time_hour], take: [temp, wind_speed, visib]}
  - mask: {columns: [tailnum], method: keyed_hash, key: {env: MASK_KEY}}
  - python: my_company.flights:score
sinks:
  - s3: {url: s3://lake/flights/, format: parquet, partition_by: [month]}
flush: {age: 60s, bytes: 64MiB, rows: 500000}
state: s3://lake/_stream/          # or a directory: file:./state
"""

EXAMPLES = Path(__file__).parents[3] / "examples"


def least(**changes):
    """The minimal pipeline with some of its top-level keys replaced or added."""
    return {**copy.deepcopy(LEAST), **changes}
