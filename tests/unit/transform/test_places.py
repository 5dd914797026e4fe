import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream.transform.places import first_places, one_each

ROWS = st.lists(st.integers(0, 12), max_size=15).map(sorted)


@given(ROWS, ROWS)
def test_rows_are_found_where_they_stand_first_or_not_at_all(given_rows, kept):
    places = first_places(pl.Series(given_rows, dtype=pl.UInt32), pl.Series(kept, dtype=pl.UInt32))
    if set(kept) <= set(given_rows):
        assert places is not None
        assert places.to_list() == [given_rows.index(row) for row in kept]
    else:
        assert places is None


@given(ROWS)
def test_one_row_a_record_is_told_from_several(rows):
    assert one_each(pl.Series(rows, dtype=pl.UInt32)) == (len(set(rows)) == len(rows))
