"""Rows are chosen and joined as Polars does it, in the calling thread."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream.rows import at, contiguous, joined, kept

KINDS = {
    "text": (pl.String(), st.none() | st.text(max_size=20)),
    "number": (pl.UInt32(), st.none() | st.integers(0, 9)),
    "truth": (pl.Boolean(), st.none() | st.booleans()),
    "moment": (pl.Datetime("ms", "UTC"), st.none() | st.integers(0, 9)),
    "items": (pl.List(pl.String()), st.none() | st.lists(st.text(max_size=14), max_size=2)),
    "object": (
        pl.Struct({"a": pl.Int64(), "b": pl.String()}),
        st.none() | st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.text(max_size=14)}),
    ),
}
ROWS = st.lists(st.fixed_dictionaries({name: values for name, (_, values) in KINDS.items()}), max_size=6)
FRAMES = ROWS.map(lambda rows: pl.DataFrame(rows, schema={name: kind for name, (kind, _) in KINDS.items()}))
CHUNKED = st.lists(FRAMES, min_size=1, max_size=4)


def whole(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames, rechunk=False)


@given(CHUNKED, st.data())
def test_kept_rows_are_those_that_a_filter_keeps(frames, data):
    frame = whole(frames)
    mask = pl.Series(data.draw(st.lists(st.none() | st.booleans(), min_size=frame.height, max_size=frame.height)), dtype=pl.Boolean)
    assert_frame_equal(kept(frame, mask), frame.filter(mask))


@given(CHUNKED, st.data())
def test_rows_come_in_the_order_of_their_places(frames, data):
    frame = whole(frames)
    places = data.draw(st.lists(st.integers(0, frame.height - 1), max_size=8)) if frame.height else []
    assert_frame_equal(at(frame, pl.Series(places, dtype=pl.UInt32)), frame[places] if places else frame.clear())


@given(CHUNKED)
def test_frames_are_joined_in_their_order(frames):
    assert_frame_equal(joined(frames), whole(frames))
    made = contiguous(frames)
    assert_frame_equal(made, whole(frames))
    assert set(made.n_chunks("all")) == {1}


def test_a_frame_without_columns_has_no_rows_to_choose():
    none = pl.DataFrame()
    assert kept(none, pl.Series([], dtype=pl.Boolean)).shape == at(none, pl.Series([], dtype=pl.UInt32)).shape == (0, 0)


@pytest.mark.parametrize("places", [[3], [0, 7]])
def test_a_place_outside_of_the_frame_is_an_error(places):
    with pytest.raises(pl.exceptions.OutOfBoundsError):
        at(pl.DataFrame({"a": [1, 2, 3]}), pl.Series(places, dtype=pl.UInt32))
