"""Queries over tables in memory: what is refused, before and after it is tried."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from stream.errors import DefinitionError
from stream.operations.query.sql import run_query, tables_of

KNOWN = ("rows", "dead_letters")


@pytest.mark.parametrize(
    ("query", "tables"),
    [
        ("SELECT * FROM rows", {"rows"}),
        ("-- dead_letters\nselect 'dead_letters' AS x from Rows ;", {"rows"}),
        ('WITH t AS (SELECT * FROM "dead_letters") SELECT * FROM t', {"dead_letters"}),
        ("SELECT * FROM rows JOIN dead_letters ON rows.a = dead_letters.a", {"rows", "dead_letters"}),
        ("SELECT ';' AS a FROM rows /* ; */", {"rows"}),
        ("SELECT read_me FROM rows", {"rows"}),
    ],
)
def test_the_tables_of_a_query_are_those_that_it_names(query, tables):
    assert tables_of(query, KNOWN) == tables


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("DROP TABLE rows", "begins with 'DROP'"),
        ("-- SELECT\n", "begins with 'nothing'"),
        ("SELECT * FROM rows; DROP TABLE rows", "one statement"),
        ("SELECT * FROM READ_CSV('x')", r"READ_CSV\(\) reads other files; a query reads rows and dead_letters"),
        ("SELECT 'rows'", "reads no table"),
    ],
)
def test_what_does_more_than_read_the_tables_is_refused(query, says):
    with pytest.raises(DefinitionError, match=says):
        tables_of(query, KNOWN)


def test_parts_of_different_definitions_are_one_table():
    parts = [pl.LazyFrame({"a": [1]}), pl.LazyFrame({"a": [2.5], "b": ["x"]}), pl.LazyFrame({"b": ["y"]})]
    assert run_query("SELECT a, b FROM rows ORDER BY b", {"rows": parts}, 9).rows() == [(2.5, "x"), (None, "y"), (1.0, None)]
    with pytest.raises(DefinitionError, match="the columns of files of different definitions do not fit together"):
        run_query("SELECT a FROM rows", {"rows": [pl.LazyFrame({"a": [{"b": 1}]}), pl.LazyFrame({"a": [[1]]})]}, 9)


def test_a_column_of_several_kinds_is_text():
    days = pl.LazyFrame({"a": [date(2026, 1, 1)], "b": [1], "c": pl.Series([1], dtype=pl.Int16), "d": ["x"]})
    others = pl.LazyFrame({"a": [20454], "b": [True], "c": [2.5], "d": pl.Series([None], dtype=pl.Null)})
    found = run_query("SELECT a, b, c, d FROM rows ORDER BY c", {"rows": [days, others]}, 9)
    assert found.rows() == [("2026-01-01", "1", 1.0, "x"), ("20454", "true", 2.5, None)]


def test_the_number_of_rows_is_limited():
    table = {"rows": [pl.LazyFrame({"a": range(5)})]}
    assert run_query("SELECT a FROM rows", table, 5).height == 5
    with pytest.raises(DefinitionError, match="more than 4 rows"):
        run_query("SELECT a FROM rows", table, 4)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT amuont FROM rows", "did you mean 'amount'.*\nrows has the columns amount, place"),
        ("SELECT ATAN2(place, 1) FROM rows", "atan2 takes numbers, no objects"),
        ("SELECT amount / 'x' FROM rows", "the query fails"),
        ("SELECT CAST('x' AS BIGINT) + amount FROM rows", "the query fails"),
    ],
)
def test_an_error_says_what_there_is(query, says):
    with pytest.raises(DefinitionError, match=says):
        run_query(query, {"rows": [pl.LazyFrame({"amount": [1.5], "place": [{"x": 1.0}]})]}, 9)
