import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.native import KERNEL
from stream.transform import row_numbers
from stream.transform.row_numbers import first_indexes, has_one_row_per_record

ROWS = st.lists(st.integers(0, 12), max_size=15).map(sorted)


@pytest.mark.parametrize("kernel", [KERNEL, None], ids=["as installed", "without the kernel"])
@given(given_rows=ROWS, kept=ROWS, base=st.sampled_from([0, 2**32 - 13]), begin=st.integers(0, 3))
def test_the_first_place_of_each_row_is_found(kernel, given_rows, kept, base, begin):
    given_rows, kept = given_rows[begin:], kept[begin:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_numbers, "KERNEL", kernel)
        before, after = (pl.Series([base, *(base + row for row in rows)], dtype=pl.UInt32).slice(1) for rows in (given_rows, kept))
        places = first_indexes(before, after)
    if set(kept) <= set(given_rows):
        assert places is not None
        assert places.to_list() == [given_rows.index(row) for row in kept]
    else:
        assert places is None


@given(ROWS)
def test_one_row_per_record_is_distinguished_from_several(rows):
    assert has_one_row_per_record(pl.Series(rows, dtype=pl.UInt32)) == (len(set(rows)) == len(rows))
