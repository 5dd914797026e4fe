import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream.transform.row_numbers import clearly_equal_texts, first_indexes, has_one_row_per_record

ROWS = st.lists(st.integers(0, 12), max_size=15).map(sorted)


@given(ROWS, ROWS)
def test_the_first_place_of_each_row_is_found(given_rows, kept):
    places = first_indexes(pl.Series(given_rows, dtype=pl.UInt32), pl.Series(kept, dtype=pl.UInt32))
    if set(kept) <= set(given_rows):
        assert places is not None
        assert places.to_list() == [given_rows.index(row) for row in kept]
    else:
        assert places is None


@given(ROWS)
def test_one_row_per_record_is_distinguished_from_several(rows):
    assert has_one_row_per_record(pl.Series(rows, dtype=pl.UInt32)) == (len(set(rows)) == len(rows))


TEXTS = st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=3) | st.text("ab", min_size=12, max_size=14), max_size=12)


@given(TEXTS, TEXTS, st.data())
def test_columns_reported_as_the_same_are_equal(texts, other_texts, data):
    column, other = pl.Series(texts, dtype=pl.String()), pl.Series(other_texts, dtype=pl.String())
    mask = pl.Series(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), dtype=pl.Boolean())
    begin, length = data.draw(st.integers(0, len(texts))), data.draw(st.integers(0, 12))
    for left, right in (
        (column, other),
        (column, column.filter(mask)),
        (column, column.slice(begin, length)),
        (column.slice(1), column.slice(begin, length)),
        (column.filter(mask), column.filter(mask)),
        (column.reverse(), column),
    ):
        if clearly_equal_texts(left, right):
            assert left.equals(right, null_equal=True)
    if column.null_count() == 0:
        assert clearly_equal_texts(column, column)
        assert clearly_equal_texts(column.filter(mask), column.to_frame().filter(mask).to_series())
        assert clearly_equal_texts(column.slice(begin, length), column.slice(begin, length))


def test_different_texts_with_equal_prefixes_and_lengths_are_not_the_same():
    one, other = (pl.Series(["abcd" + letter * 20]) for letter in "xy")
    assert not clearly_equal_texts(one, other)
