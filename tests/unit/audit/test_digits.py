"""Frames of digits, with and without the compiled kernel: the same bytes, and every reader gives back what was put in."""

from __future__ import annotations

import io

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit import columns, digits
from stream.native import KERNEL

LIBRARY = pa.Codec("zstd", compression_level=1)
SIZES = st.one_of(st.integers(digits.LEAST, 600), st.sampled_from([2**17 - 1, 2**17, 2**17 + 1, 3 * 2**17 + 7, 500_000]))


def by_python(text: bytes) -> bytes | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "KERNEL", None)
        found = digits.blocks(text)
    return None if found is None else bytes(found)


def ways(text: bytes) -> set[bytes | None]:
    """What the Python code and, if there is one, the kernel with and without special instructions make of ``text``."""
    found = {by_python(text)}
    for quick in (False, True) if KERNEL is not None else ():
        made = KERNEL.digits(text, quick)
        found.add(None if made is None else bytes(made))
    return found


@settings(deadline=None)
@given(SIZES, st.integers(0, 2**32), st.sampled_from([range(10), range(4), range(4, 10), (0,), (9,)]), st.integers(0, 300_000))
def test_all_ways_make_one_frame_and_zstandard_reads_it(size, seed, alphabet, head_size):
    rng = np.random.default_rng(seed)
    text = (rng.choice(np.array(alphabet), size) + ord("0")).astype(np.uint8).tobytes()
    head = rng.integers(0, 3, head_size).astype(np.uint8).tobytes()
    (made,) = ways(text)
    assert made is not None
    assert len(made) <= size / 2 + 64 * (size / 2**17 + 1)
    frame = digits.with_digits(LIBRARY.compress(head, asbytes=True), len(head) + size, made)
    assert LIBRARY.decompress(frame, len(head) + size, asbytes=True) == head + text


@given(st.integers(0, 300), st.data())
def test_a_text_that_is_short_or_not_all_digits_is_refused_everywhere(size, data):
    text = bytearray(b"7" * size)
    if size >= digits.LEAST:
        text[data.draw(st.integers(0, size - 1))] = data.draw(st.sampled_from(b"/:a\x00\xff"))
    assert ways(bytes(text)) == {None}


@pytest.mark.parametrize("head", [b"", b"z", b"ab" * 100_000, bytes(500_000), bytes(range(256)) * 2_000])
def test_any_frame_can_come_before_the_digits(head):
    text = b"0123456789" * 30
    (made,) = ways(text)
    frame = digits.with_digits(LIBRARY.compress(head, asbytes=True), len(head) + len(text), made)
    assert LIBRARY.decompress(frame, len(head) + len(text), asbytes=True) == head + text


@pytest.mark.parametrize("rows", [50, 5_000, 60_000])
def test_readers_of_parquet_read_sequence_numbers_back(rows, tmp_path):
    rng = np.random.default_rng(rows)
    firsts, rests = np.sort(rng.integers(10**15, 10**16, rows)).tolist(), rng.integers(0, 10**18, rows).tolist()
    numbers = [f"{first}{rest:040d}" for first, rest in zip(firsts, rests, strict=True)]
    column = pl.Series("seq", numbers)
    file = columns.parquet({"seq": column}, rows, {})
    assert pl.read_parquet(file)["seq"].equals(column)
    assert pq.read_table(io.BytesIO(file))["seq"].to_pylist() == numbers
    path = tmp_path / "numbers.parquet"
    path.write_bytes(file)
    assert [text for (text,) in duckdb.sql(f"FROM '{path}'").fetchall()] == numbers
    assert len(file) < rows * 56 / 2 + 1_000  # fewer than four bits for each digit
