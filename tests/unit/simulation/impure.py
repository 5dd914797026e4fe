"""Functions for `python` stages that are not deterministic, each in its own way, and some that are."""

from __future__ import annotations

import os
import random
import time
from datetime import date

import polars as pl

_calls = [0]
_seen: set[str] = set()


def _with(frame: pl.DataFrame, values: list[float]) -> pl.DataFrame:
    return frame.with_columns(x=pl.Series(values, dtype=pl.Float64))


def clock(frame):
    return frame.with_columns(x=pl.lit(time.time()))


def today(frame):
    return frame.with_columns(x=pl.lit(float(date.today().toordinal())))  # noqa: DTZ011


def dice(frame):
    return _with(frame, [random.random() for _ in range(frame.height)])


def counter(frame):
    _calls[0] += 1
    return frame.with_columns(x=pl.lit(float(_calls[0])))


def size(frame):
    return frame.with_columns(x=pl.lit(float(len(frame))))


def place(frame):
    return frame.with_columns(x=pl.int_range(pl.len()).cast(pl.Float64))


def first_row(frame):
    return frame.with_columns(x=pl.col("id").first().cast(pl.Float64))


def row_number(frame):
    return frame.with_columns(x=pl.col("_row").cast(pl.Float64))


def hash_seed(frame):
    return _with(frame, [float(hash(city) % 1000) for city in frame["city"]])


def set_order(frame):
    order = list({"a", "b", "c", "d", "e", "f", "g", "h"})
    return frame.with_columns(x=pl.lit(float(order.index("a") * 8 + order.index("b"))))


def environment(frame):
    return frame.with_columns(x=pl.lit(float(len(os.environ["HOME"]))))


def once_only(frame):
    """Drops what it has seen before: a result of what else the process has done."""
    fresh = [city not in _seen for city in frame["city"]]
    _seen.update(frame["city"])
    return frame.filter(pl.Series(fresh, dtype=pl.Boolean)).with_columns(x=pl.lit(0.0))


def pure(frame):
    return frame.with_columns(x=pl.col("id").cast(pl.Float64) * 2)


def careful(frame):
    """Uses dates, but not today's."""
    since = date(2020, 1, 1).toordinal()
    return frame.with_columns(x=pl.lit(float(since)))


def raises_on_some(frame):
    """Raises for some records, whatever else there is: those become dead letters, which is deterministic."""
    if any(number % 3 == 0 for number in frame["id"]):
        raise ValueError("multiples of three")
    return frame.with_columns(x=pl.lit(1.0))
