"""Buffers of columns, distinct rows and groups, compared with Polars."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream.audit.buffers import lengths, null_texts, numbers, validity
from stream.audit.fates import distinct_rows
from stream.audit.records import group_rows

texts = st.one_of(st.none(), st.sampled_from(["", "a", "written", "wrong_type:dep_time", "ü" * 9]))


@given(st.lists(texts, max_size=40), st.integers(0, 12), st.integers(0, 12))
def test_lengths_and_validity_of_text_columns_match_polars(values, skipped, taken):
    column = pl.Series(values, dtype=pl.String).slice(skipped, taken)
    valid = validity(column)
    assert (valid is None) == (column.null_count() == 0)
    found = lengths(column) if valid is None else lengths(column)[valid]
    assert found.tolist() == column.drop_nulls().str.len_bytes().to_list()
    if valid is not None:
        assert valid.tolist() == column.is_not_null().to_list()


@given(
    st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=40), st.integers(0, 12), st.sampled_from([pl.Int32, pl.Int64])
)
def test_values_and_validity_of_number_columns_match_polars(values, skipped, kind):
    column = pl.Series(values, dtype=kind).slice(skipped)
    valid = validity(column)
    found = numbers(column) if valid is None else numbers(column)[valid]
    assert found.tolist() == column.drop_nulls().to_list()
    assert found.itemsize == (4 if kind == pl.Int32 else 8)


def test_a_column_of_nulls_equals_that_of_polars():
    assert null_texts("trace_id", 3).equals(pl.Series("trace_id", [None] * 3, dtype=pl.String), null_equal=True)


many = st.text("abcdefghijkl", min_size=1, max_size=1)


@given(st.lists(st.tuples(st.integers(1, 3), st.one_of(texts, many), texts), max_size=60))
def test_distinct_rows_are_numbered_in_order_of_appearance(rows):
    frame = pl.DataFrame(rows, schema={"outcome": pl.UInt8, "stage": pl.String, "reason": pl.String}, orient="row")
    kinds, codes = distinct_rows(frame.get_columns())
    assert kinds == frame.unique(maintain_order=True).rows()
    assert [kinds[code] for code in codes] == rows


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**21), st.integers(0, 2**21), st.booleans()), min_size=1, max_size=60))
def test_equal_rows_are_grouped(rows):
    parts = [np.array(values) for values in zip(*rows, strict=True)]
    found = group_rows(parts)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(rows)))
    for at in found:
        assert at.tolist() == sorted(at.tolist())
        assert len({rows[place] for place in at}) == 1
    assert len(found) == len(set(rows))
