"""The work of each shape as it is usually written: record by record with dicts, and page by page with Polars. Used by the peers only."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

ROWS_A_FILE = 50_000


def click(data: bytes) -> dict[str, Any] | None:
    event = json.loads(data)
    if event["dwell_ms"] is None:
        return None
    event["ts"] = datetime.fromisoformat(event["ts"])
    event["area"] = event["width"] * event["height"]
    event["slow"] = event["dwell_ms"] > 30_000
    return event


def dirty(data: bytes) -> dict[str, Any] | None:
    try:
        return click(data)
    except (ValueError, KeyError, TypeError):
        return None


def order(data: bytes) -> dict[str, Any] | None:
    event = json.loads(data)
    if event["channel"] == "test":
        return None
    event["placed_at"] = datetime.fromisoformat(event["placed_at"])
    event["cents"] = event["total"] * 100.0
    event["urgent"] = event["priority"] > 2
    return event


def flights(data: bytes) -> dict[str, Any] | None:
    event = json.loads(data)
    if event["dep_time"] is None:
        return None
    event["time_hour"] = datetime.fromisoformat(event["time_hour"])
    event["departure_month"] = event["time_hour"].strftime("%Y-%m")
    late = event["arr_delay"]
    event["made_up"] = None if late is None else event["dep_delay"] - late
    return event


DICTS = {"click": click, "dirty": dirty, "order": order, "flights": flights}


class DictWriter:
    """A dict per record, a table per file."""

    def __init__(self, shape: str, folder: str) -> None:
        self.job, self.folder, self.rows, self.files = DICTS[shape], folder, [], 0

    def page(self, datas: list[bytes]) -> None:
        self.rows += [row for row in map(self.job, datas) if row is not None]
        if len(self.rows) >= ROWS_A_FILE:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.rows:
            pq.write_table(pa.Table.from_pylist(self.rows), f"{self.folder}/{self.files}.parquet", compression="zstd", compression_level=1)
        self.files, self.rows = self.files + 1, []


class PolarsWriter:
    """A frame per page, read as one NDJSON text; if a page does not parse, it is read without the records that are not valid objects."""

    def __init__(self, shape: str, folder: str) -> None:
        import polars as pl

        self.pl, self.shape, self.folder, self.frames, self.rows, self.files = pl, shape, folder, [], 0, 0
        self.schema = schemas(pl)[shape.replace("dirty", "click")]

    def page(self, datas: list[bytes]) -> None:
        pl = self.pl
        if self.shape == "dirty":
            datas = [data for data in datas if _sound(data)]
        frame = pl.read_ndjson(b"\n".join(datas), schema=self.schema)
        self.frames.append(self.work(frame))
        self.rows += self.frames[-1].height
        if self.rows >= ROWS_A_FILE:
            self.flush()

    def work(self, frame: Any) -> Any:
        pl = self.pl
        col, zulu = pl.col, "%Y-%m-%dT%H:%M:%SZ"
        rows = frame.lazy()
        if self.shape == "order":
            when = col("placed_at").str.to_datetime(zulu, time_unit="us", time_zone="UTC")
            return (
                rows.filter(col("channel") != "test").with_columns(when, cents=col("total") * 100.0, urgent=col("priority") > 2).collect()
            )
        if self.shape == "flights":
            when = col("time_hour").str.to_datetime(zulu, time_unit="us", time_zone="UTC")
            month = col("time_hour").dt.strftime("%Y-%m")
            made_up = col("dep_delay") - col("arr_delay")
            rows = rows.filter(col("dep_time").is_not_null()).with_columns(when)
            return rows.with_columns(departure_month=month, made_up=made_up).collect()
        when = col("ts").str.to_datetime(zulu, time_unit="us", time_zone="UTC")
        rows = rows.filter(col("dwell_ms").is_not_null())
        return rows.with_columns(when, area=col("width") * col("height"), slow=col("dwell_ms") > 30_000).collect()

    def flush(self) -> None:
        if self.rows:
            frame = self.pl.concat(self.frames)
            frame.write_parquet(f"{self.folder}/{self.files}.parquet", compression="zstd", compression_level=1)
        self.files, self.frames, self.rows = self.files + 1, [], 0


def _sound(data: bytes) -> bool:
    try:
        return "event_id" in json.loads(data)
    except ValueError:
        return False


def schemas(pl: Any) -> dict[str, dict[str, Any]]:
    text, whole, real, flag = pl.String, pl.Int64, pl.Float64, pl.Boolean
    address = pl.Struct(dict.fromkeys(("name", "street", "city", "zip", "country"), text))
    lines = pl.List(pl.Struct({"sku": text, "quantity": whole, "price": real, "gift": flag}))
    numbers = ("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay")
    return {
        "click": {**dict.fromkeys(("event_id", "ts"), text), "user_id": whole,
                  **dict.fromkeys(("session", "page", "url", "country", "device", "browser"), text),
                  **dict.fromkeys(("width", "height", "dwell_ms"), whole), "scroll": real, "returning": flag},
        "order": {"order_id": text, "placed_at": text, "customer": whole, "channel": text, "currency": text, "total": real, "note": text,
                  "shipping": address, "billing": address, "lines": lines, "coupon": text, "priority": whole},
        "flights": {**dict.fromkeys(numbers, whole), "carrier": text, "flight": whole, **dict.fromkeys(("tailnum", "origin", "dest"), text),
                    **dict.fromkeys(("air_time", "distance", "hour", "minute"), whole), "time_hour": text},
    }  # fmt: skip


WRITERS = {"dict": DictWriter, "polars": PolarsWriter}
