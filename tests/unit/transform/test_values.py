from datetime import UTC, datetime

import polars as pl
import pytest

from stream.transform.values import timestamps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2013-01-01T10:00:00Z", datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("2013-01-01T10:00:00.123456Z", datetime(2013, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2013-01-01T10:00:00.123456789+00:00", datetime(2013, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2013-01-01T10:00:00+02:00", datetime(2013, 1, 1, 8, tzinfo=UTC)),
        ("2013-01-01T10:00:00-0530", datetime(2013, 1, 1, 15, 30, tzinfo=UTC)),
        ("2013-01-01 10:00:00", datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("2013-01-01T10:00", datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("2013-01-01T10:00Z", datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("2013-01-01", datetime(2013, 1, 1, tzinfo=UTC)),
        ("2013-02-30T00:00:00Z", None),
        ("2013-1-1T0:0:0", None),
        ("0000-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_timestamp_is_read_the_same_alone_and_among_others(text, expected):
    neighbours = ["2013-01-01T00:00:00Z", None, "garbage", "2013-01-01"]
    assert timestamps(pl.Series([text])).to_list() == [expected]
    assert timestamps(pl.Series([*neighbours, text])).to_list()[-1] == expected
