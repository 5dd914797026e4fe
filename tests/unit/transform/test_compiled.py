"""The kernel's functions on text with any bytes and invalid arguments; their results are tested where they are used."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.native import KERNEL, views

pytestmark = pytest.mark.compares_kernel
HIDDEN = np.ones(0x110000, np.bool_)
RANGES = np.zeros((1, 6), np.uint64)
CALLS = {
    "keyed_hash": lambda column: KERNEL.keyed_hash(*column, bytes(64), 64, True),
    "keep_last": lambda column: KERNEL.keep_last(*column, 3, HIDDEN),
    "cut": lambda column: KERNEL.cut(*column, None, 1, ((44, 2, True), (44, 1, False), (-1, 0, True))),
    "urls": lambda column: KERNEL.urls(*column, b"\1" * 7),
    "addresses": lambda column: KERNEL.addresses(*column, RANGES),
}
WRONG = {
    "a short key": lambda column: KERNEL.keyed_hash(*column, bytes(63), 64, True),
    "a long digest": lambda column: KERNEL.keyed_hash(*column, bytes(64), 65, True),
    "no characters kept": lambda column: KERNEL.keep_last(*column, 0, HIDDEN),
    "few characters known": lambda column: KERNEL.keep_last(*column, 1, HIDDEN[:-1].copy()),
    "fields that are none": lambda column: KERNEL.cut(*column, None, 0, []),
    "too many fields": lambda column: KERNEL.cut(*column, None, 0, ((32, 1, True),) * 65),
    "a step back": lambda column: KERNEL.cut(*column, None, 0, ((32, -1, True),)),
    "a letter of two bytes": lambda column: KERNEL.cut(*column, None, 0, ((0xE9, 1, True),)),
    "choices for other rows": lambda column: KERNEL.cut(*column, b"\1\1", 0, ((32, 1, True),)),
    "too few parts": lambda column: KERNEL.urls(*column, b"\1"),
    "half a range": lambda column: KERNEL.addresses(*column, bytes(24)),
}
pieces = st.sampled_from(
    [b"https://", b"::", b"1.2.3.", b"@", b"[", b"]", b":", b"ffff:", b"\xf0\x9f", b"\xc3", b"\x80\x80\x80\x80", b",", b"A" * 13]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=20) | pieces, max_size=5).map(b"".join), max_size=20), st.integers(0, 3))
def test_any_bytes_are_read_within_bounds_and_the_same_each_time(values, skipped):
    column = views(pl.Series(values, dtype=pl.Binary)[skipped:])
    for call in CALLS.values() if KERNEL is not None else ():
        assert _plain(call(column)) == _plain(call(column))


def _plain(made):
    return tuple(map(_plain, made)) if isinstance(made, tuple) else made if made is None or isinstance(made, int) else bytes(made)


@pytest.mark.parametrize("name", WRONG)
def test_invalid_arguments_are_refused(name):
    for call in (WRONG[name],) if KERNEL is not None else ():
        with pytest.raises(ValueError, match=r"\w"):
            call(views(pl.Series(["a b c"])))
