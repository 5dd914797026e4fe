"""Compares the lake with the source, independently of the service: the files, the ledger, and DuckDB over the published data.

Nothing here uses the engine: expected rows come from SQL over the flights file, and the outcome counts from the ledger's Parquet files.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import duckdb

DATA_COLUMNS: Final = (
    "year, month, day, dep_time, dep_delay, arr_delay, carrier, flight, tailnum, origin, dest, distance, time_hour, departure_month, "
    "made_up, late, airline, plane_built, plane_maker, plane_seats, origin_name, dest_name, dest_lat, dest_lon, temp, wind_speed, visib"
)

EXPECTED: Final = """
CREATE TEMP TABLE expected AS
SELECT f.year, f.month, f.day, f.dep_time, f.dep_delay, f.arr_delay, f.carrier, f.flight, m.masked AS tailnum, f.origin, f.dest, f.distance,
       CAST(f.time_hour AS TIMESTAMPTZ) AS time_hour, substr(f.time_hour, 1, 7) AS departure_month, f.dep_delay - f.arr_delay AS made_up,
       coalesce(f.arr_delay > 15, false) AS late, a.name AS airline, p.year AS plane_built, p.manufacturer AS plane_maker,
       p.seats AS plane_seats, o.name AS origin_name, d.name AS dest_name, d.lat AS dest_lat, d.lon AS dest_lon,
       w.temp, w.wind_speed, w.visib
FROM flights f
LEFT JOIN masks m ON f.tailnum = m.tailnum
LEFT JOIN airlines a ON f.carrier = a.carrier
LEFT JOIN planes p ON f.tailnum = p.tailnum
LEFT JOIN airports o ON f.origin = o.faa
LEFT JOIN airports d ON f.dest = d.faa
LEFT JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
WHERE f.dep_time IS NOT NULL
"""

MASK_DIGITS: Final = 32
"""Hex digits that the pipeline's `mask` stage keeps, its default."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check; the run is good only if ``expected`` equals ``found``."""

    what: str
    expected: Any
    found: Any

    @property
    def good(self) -> bool:
        """Whether the check passed."""
        return bool(self.expected == self.found)


def judge(lake: Path, ledger: Path, *, rows: int, broken: int, mask_key: bytes) -> list[Finding]:
    """Compare the files under ``lake`` and the segments under ``ledger`` with the first ``rows`` published flights in order of time."""
    import duckdb

    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        _load_source(db, rows, mask_key)
        has_data = any(lake.rglob("*.parquet"))
        data = f"read_parquet('{lake}/**/*.parquet', hive_partitioning = true)" if has_data else "(SELECT * FROM expected LIMIT 0)"
        db.execute(f"CREATE TEMP VIEW written AS SELECT * FROM {data}")  # noqa: S608 - a path of our own making
        db.execute(f"CREATE TEMP VIEW ledger AS SELECT * FROM read_parquet('{ledger}/**/*.parquet')")  # noqa: S608
        expected = _one(db, "SELECT count(*) FROM expected")
        return [
            Finding("rows in the lake", expected, _one(db, "SELECT count(*) FROM written")),
            Finding("months x carriers whose counts differ", 0, _differing_groups(db)),
            Finding("rows of the source missing or different in the lake", 0, _beyond(db, "expected", "written")),
            Finding("rows in the lake that the source does not give", 0, _beyond(db, "written", "expected")),
            Finding("records written twice", 0, _doubles(db)),
            Finding("records read (ledger)", rows + broken, _one(db, "SELECT count(*) FROM ledger")),
            Finding("records with two outcomes", 0, _ledger_doubles(db)),
            Finding("outcomes (ledger)", _outcomes(rows, expected, broken), _ledger_outcomes(db)),
        ]


def _load_source(db: duckdb.DuckDBPyConnection, rows: int, mask_key: bytes) -> None:
    for name in ("flights", "airlines", "planes", "airports", "weather"):
        with as_file(files("stream.data") / "nycflights13" / f"{name}.parquet") as path:
            limit = f"ORDER BY time_hour, origin, carrier, flight LIMIT {rows}" if name == "flights" else ""
            db.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM read_parquet('{path}') {limit}")  # noqa: S608
    tails = [tail for (tail,) in db.execute("SELECT DISTINCT tailnum FROM flights WHERE tailnum IS NOT NULL").fetchall()]
    db.execute("CREATE TEMP TABLE masks (tailnum VARCHAR, masked VARCHAR)")
    masked = [(tail, hmac.new(mask_key, tail.encode(), hashlib.sha256).hexdigest()[:MASK_DIGITS]) for tail in tails]
    if masked:
        db.executemany("INSERT INTO masks VALUES (?, ?)", masked)
    db.execute(EXPECTED)


def _outcomes(rows: int, written: int, broken: int) -> Mapping[str, int]:
    counts = {"written": written, "filtered": rows - written, "dead_lettered": broken}
    return {label: count for label, count in counts.items() if count}


def _ledger_outcomes(db: duckdb.DuckDBPyConnection) -> Mapping[str, int]:
    return dict(db.execute("SELECT CAST(outcome AS VARCHAR), count(*) FROM ledger GROUP BY 1").fetchall())


def _differing_groups(db: duckdb.DuckDBPyConnection) -> int:
    return _one(
        db,
        """SELECT count(*) FROM (SELECT departure_month, carrier, count(*) AS n FROM expected GROUP BY ALL) e
           FULL JOIN (SELECT departure_month, carrier, count(*) AS n FROM written GROUP BY ALL) w USING (departure_month, carrier)
           WHERE e.n IS DISTINCT FROM w.n""",
    )


def _beyond(db: duckdb.DuckDBPyConnection, left: str, right: str) -> int:
    return _one(
        db,
        f"SELECT count(*) FROM (SELECT {DATA_COLUMNS} FROM {left} EXCEPT ALL SELECT {DATA_COLUMNS} FROM {right})",  # noqa: S608
    )


def _doubles(db: duckdb.DuckDBPyConnection) -> int:
    return _one(
        db,
        "SELECT count(*) FROM (SELECT 1 FROM written GROUP BY _shard, _sequence, _subsequence HAVING count(*) > 1)",
    )


def _ledger_doubles(db: duckdb.DuckDBPyConnection) -> int:
    return _one(db, "SELECT count(*) FROM (SELECT 1 FROM ledger GROUP BY seq, sub HAVING count(*) > 1)")


def _one(db: duckdb.DuckDBPyConnection, query: str) -> int:
    row = db.execute(query).fetchone()
    return int(row[0]) if row else 0
