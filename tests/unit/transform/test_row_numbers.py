import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.native import KERNEL
from stream.transform import row_numbers
from stream.transform.row_numbers import clearly_equal, first_indexes, has_one_row_per_record

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


TEXT = st.text(st.characters(codec="utf-8"), max_size=3) | st.text("ab", min_size=12, max_size=14)
COLUMNS = st.one_of(
    *(
        st.lists(st.none() | values, max_size=12).map(lambda drawn, kind=kind: pl.Series(drawn, dtype=kind))
        for kind, values in (
            (pl.String(), TEXT),
            (pl.UInt32(), st.integers(0, 3)),
            (pl.Int64(), st.integers(-2, 2)),
            (pl.Boolean(), st.booleans()),
            (pl.Datetime("ms", "UTC"), st.integers(0, 3)),
        )
    )
)


@given(COLUMNS, COLUMNS, st.data())
def test_columns_reported_as_the_same_are_equal(column, other, data):
    mask = pl.Series(data.draw(st.lists(st.booleans(), min_size=len(column), max_size=len(column))), dtype=pl.Boolean())
    begin, length = data.draw(st.integers(0, len(column))), data.draw(st.integers(0, 12))
    for left, right in (
        (column, other),
        (column, column.filter(mask)),
        (column, column.slice(begin, length)),
        (column.slice(1), column.slice(begin, length)),
        (column.filter(mask), column.filter(mask)),
        (column.reverse(), column),
    ):
        if clearly_equal([left], [right]) == [True]:
            assert left.equals(right, check_dtypes=True, null_equal=True)
    if column.null_count() == 0 and column.dtype != pl.Boolean():
        again = column.to_frame().filter(mask).to_series()
        assert clearly_equal([column.filter(mask)], [again]) == [True]
        assert clearly_equal([column, column.slice(0)], [column] * 2) == [True] * 2
        assert clearly_equal([column.slice(begin, length)], [column.slice(begin, length)]) == [True]


def test_each_column_is_compared_with_its_own_partner():
    numbers, others, texts = pl.Series([1, 2, 3]), pl.Series([1, 2, 4]), pl.Series(["a", "b" * 20, "c"])
    assert clearly_equal([numbers, numbers, texts], [numbers.clone(), others, texts]) == [True, False, True]
    assert clearly_equal([numbers, texts], [numbers, texts.slice(1)]) == [False, False]


def test_different_texts_with_equal_prefixes_and_lengths_are_not_the_same():
    one, other = (pl.Series(["abcd" + letter * 20]) for letter in "xy")
    assert clearly_equal([one], [other]) == [False]


@pytest.mark.parametrize("values", [["a", "b", "a", "b"], [1, 2, 1, 2]], ids=["texts", "numbers"])
def test_arrays_that_begin_within_their_memory_are_compared_from_there(values):
    array = pa.array(values, pa.string_view() if isinstance(values[0], str) else pa.int64())
    equal = {begin: row_numbers._same_memory(array.slice(0, 2), array.slice(begin, 2)) for begin in range(3)}
    assert equal == {0: True, 1: False, 2: True}
