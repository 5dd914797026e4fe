from __future__ import annotations

import polars as pl
import pytest

from stream.testing.stages import columns_come_from_their_origins, frame_of
from stream.transform.origins import query_origins
from stream.transform.stage import Example
from stream.transform.stages.sql import Sql
from stream.transform.types import SYSTEM
from tests.frames import RESOURCES

GIVEN = [{"carrier": "UA", "tailnum": "N1", "x": 3, "end": 1}, {"carrier": "AA", "tailnum": "N2", "x": 4, "end": 2}]
SCHEMA = frame_of(GIVEN).schema
TABLES = {"airlines": "reference/airlines.parquet"}
BACKWARDS = [
    "SELECT * FROM batch",
    "SELECT *, UPPER(tailnum) AS plane FROM batch",
    "SELECT *, UPPER(tailnum) plane FROM batch",
    "SELECT _row, carrier || tailnum, x FROM batch",
    "SELECT _row, x c, tailnum AS x FROM batch",
    'SELECT _row, tailnum AS "a ""b", x FROM batch -- carrier',
    "SELECT _row, CASE WHEN x > 3 THEN tailnum END FROM batch",
    'SELECT _row, b.tailnum, "end" AS carrier FROM batch AS b WHERE x > 0',
    "SELECT _row, tailnum AS carrier, carrier AS tailnum FROM self",
    "SELECT * EXCLUDE (tailnum) FROM batch",
    "SELECT * REPLACE (tailnum AS carrier) FROM batch",
    "SELECT MIN(_row) AS _row, MAX(tailnum) AS carrier, x FROM batch GROUP BY x",
    "SELECT _row, x, SUM(x) OVER (PARTITION BY carrier) AS s FROM batch",
    "WITH c AS (SELECT _row, tailnum AS carrier FROM batch) SELECT * FROM c",
    "SELECT _row, y FROM (SELECT _row, tailnum AS y FROM batch) AS q",
    "SELECT _row, carrier FROM batch WHERE x < 4 UNION ALL SELECT _row, tailnum FROM batch WHERE x >= 4",
]
JOINS = [
    "SELECT b.*, a.name AS airline FROM batch b LEFT JOIN airlines a ON a.carrier = b.carrier",
    "SELECT b._row, a.carrier FROM batch b LEFT JOIN airlines a ON a.name = b.tailnum",
    "SELECT b._row, a.* FROM batch b LEFT JOIN airlines a ON a.carrier = b.carrier",
    "SELECT _row, name FROM batch LEFT JOIN airlines USING (carrier)",
]


@pytest.mark.parametrize("query", [*BACKWARDS, *JOINS])
def test_no_origin_is_missing(query):
    class Query(Sql):
        example = Example(config={"query": query, "tables": TABLES if query in JOINS else {}}, given=GIVEN, expect=[])

    columns_come_from_their_origins(Query, RESOURCES)


def origins(query, *after, joins=False):
    found = query_origins(query, SCHEMA, pl.Schema(dict.fromkeys((*SYSTEM, *after), pl.String())), joins=joins)
    assert [*found] == [*SYSTEM, *after]
    return {name: set(columns) for name, columns in found.items() if name not in SYSTEM}


def test_a_column_that_is_only_passed_on_comes_from_itself():
    same = {"carrier": {"carrier"}, "tailnum": {"tailnum"}}
    assert origins("SELECT *, UPPER(x) AS y FROM batch WHERE x > 3", "carrier", "tailnum", "y") == {**same, "y": {"x"}}
    assert origins("SELECT b.*, a.name FROM batch b JOIN airlines a ON a.carrier = b.carrier", "tailnum", "name", joins=True) == {
        "tailnum": {"tailnum"}, "name": {"carrier"},
    }  # fmt: skip
    assert origins("select _row, carrier, b.tailnum from batch b", "carrier", "tailnum") == same


def test_a_name_in_quotes_or_a_comment_is_not_a_column():
    assert origins("SELECT _row, 'tailnum' || x AS y /* carrier */ FROM batch", "y") == {"y": {"x"}}
    assert origins('SELECT _row, "tailnum" AS y FROM batch', "y") == {"y": {"tailnum"}}


def test_each_column_of_a_complex_query_comes_from_every_column_it_names():
    query = "SELECT MIN(_row) AS _row, MAX(tailnum) AS last, x FROM batch GROUP BY x"
    assert origins(query, "last", "x") == {"last": {"_row", "tailnum", "x"}, "x": {"_row", "tailnum", "x"}}
