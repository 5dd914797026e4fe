from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from stream.errors import DefinitionError
from stream.pipeline.resources.databases import read_database
from stream.pipeline.resources.fetching import parse_table, read_local


@pytest.fixture
def base(tmp_path):
    with closing(sqlite3.connect(tmp_path / "fleet.db")) as connection, connection:
        connection.execute("CREATE TABLE planes (tail TEXT, seats INTEGER, weight REAL, raw BLOB)")
        connection.executemany("INSERT INTO planes VALUES (?, ?, ?, ?)", [("N2", None, 1.5, b"\x00"), ("N1", 100, None, None)])
    return tmp_path


def test_the_result_of_the_query_is_the_table(base):
    url = "sqlite:fleet.db#SELECT tail, seats, weight, raw FROM planes"
    frame = parse_table(url, read_local(url, base))
    assert frame.to_dicts() == [
        {"tail": "N1", "seats": 100, "weight": None, "raw": None},
        {"tail": "N2", "seats": None, "weight": 1.5, "raw": b"\x00"},
    ]


def test_the_order_of_rows_does_not_change_the_bytes(base):
    ascending = read_database("sqlite:fleet.db#SELECT * FROM planes ORDER BY tail ASC", base)
    assert read_database("sqlite:fleet.db#SELECT * FROM planes ORDER BY tail DESC", base) == ascending


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:none.db#SELECT 1", "no database none.db"),
        ("sqlite:fleet.db#SELECT x FROM planes", "no such column"),
        ("sqlite:fleet.db#DELETE FROM planes", "readonly"),
        ("sqlite:fleet.db#SELECT 1; SELECT 2", "failed"),
        ("sqlite:fleet.db#SELECT 1 AS a, 2 AS a", "a name of its own"),
        ("sqlite:fleet.db#SELECT tail AS a FROM planes UNION ALL SELECT 1", "mixes numbers and text"),
    ],
)
def test_a_query_that_fails_says_why(base, url, says):
    with pytest.raises(DefinitionError, match=says):
        read_database(url, base)


def test_mixed_numbers_become_one_type_and_empty_columns_become_text(base):
    url = "sqlite:fleet.db#SELECT seats AS n, NULL AS empty FROM planes UNION ALL SELECT 1.5, NULL"
    frame = parse_table(url, read_local(url, base))
    assert [str(kind) for kind in frame.dtypes] == ["Float64", "String"]
