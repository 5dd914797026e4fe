"""The audit with the compiled kernel and without: equal bytes, equal numbers, whatever the records look like.

Where there is no kernel both are the ordinary way; tests/unit/transform/decoders/test_native.py sees to it that there is one here.
"""

from __future__ import annotations

import gzip
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit import columns, context, ids, packing, wire
from stream.audit import set_hash as hashes
from stream.audit.packing import Block, Compression, Request, compressed
from stream.native import KERNEL
from tests.unit.audit.test_ledger import ENDS, segment

PARTS = (columns, context, ids, packing, hashes, wire)


@contextmanager
def ordinary():
    for part in PARTS:
        part.KERNEL = None
    try:
        yield
    finally:
        for part in PARTS:
            part.KERNEL = KERNEL


def both(work):
    with ordinary():
        without = work()
    return work(), without


digits = st.integers(0, 10**60).map(str)
near = st.tuples(st.integers(10**54, 10**56), st.lists(st.integers(0, 2**40), min_size=1, max_size=40)).map(
    lambda drawn: [str(drawn[0] + step * 2**30) for step in drawn[1]]
)
sequences = st.one_of(near, st.lists(digits, min_size=1, max_size=40), st.lists(st.sampled_from(["0", "7" * 18, "1" + "0" * 18, "9" * 72])))


@settings(deadline=None)
@given(sequences, st.integers(0, 2**32 - 1))
def test_ids_and_set_hashes(numbers, sub):
    frame = pl.DataFrame({"seq": numbers, "sub": [sub] * len(numbers)}, schema={"seq": pl.String, "sub": pl.UInt32})
    fast, slow = both(lambda: [array.tobytes() for array in ids.record_ids(frame, "events", "shardId-0", "app")])
    assert fast == slow
    fast, slow = both(lambda: hashes.SetHash.of(frame["seq"], frame["sub"]))
    assert fast == slow


@pytest.mark.parametrize("wrong", ["12a", "-1", "1" * 8 + ":" + "1" * 9, "1" * 73 + "x"])
def test_what_is_no_number_is_refused_either_way(wrong):
    series = pl.Series(["1" * 56, wrong, "2" * 56])
    for way in (ordinary, contextmanager(lambda: iter([None]))):
        with way(), pytest.raises(ValueError, match="decimal digits only"):
            hashes.SetHash.of(series, pl.Series([0, 0, 0], dtype=pl.UInt32))


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=300), st.booleans())
def test_texts_that_share_beginnings(texts, rising):
    column = pl.Series(sorted(texts) if rising else texts, dtype=pl.String)
    if len(texts):
        fast, slow = both(lambda: bytes(columns.delta_texts(column)))
        assert fast == slow
    fast, slow = both(lambda: ids.characters(column, 160).tobytes())
    assert fast == slow


@pytest.mark.parametrize("ends", [ENDS, [1], [], ENDS * 50, [ENDS[1]] * 200 + [1]])
def test_ledger_segments(ends):
    fast, slow = both(lambda: segment(ends).body)
    assert fast == slow


@settings(deadline=None)
@given(
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300).map(lambda values: np.array(values, np.int64)),
        st.lists(st.integers(-(2**31), 2**31 - 1), max_size=300).map(lambda values: np.array(values, np.int32)),
        st.lists(st.integers(0, 3), min_size=100, max_size=600).map(lambda values: np.array(values, np.int32)),
    )
)
def test_integers(values):
    fast, slow = both(lambda: bytes(columns.delta_integers(values)))
    assert fast == slow


words = st.sampled_from([b'"traceparent"', b'"tp"', b'"x"', b'"tracepar', b"traceparent", b'ep"'])


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.binary(max_size=90), words), max_size=6).map(b"".join),
        max_size=30,
    ),
    st.integers(0, 3),
)
def test_payloads_that_carry_a_trace_context(payloads, skipped):
    column = pl.Series(payloads, dtype=pl.Binary)[skipped:]
    fast, slow = both(lambda: context._holding(column, ["tp", "traceparent"]).to_list())
    assert fast == slow == [at for at, body in enumerate(payloads[skipped:]) if b'"tp"' in body or b'"traceparent"' in body]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_padded_numbers(values):
    fast, slow = both(lambda: wire.digits(np.array(values, np.uint32)).tolist())
    assert fast == slow
    assert len(fast) == len(values)


def bytes_that(vary, dice, rows, width):
    """A field of so many rows, of which a message shares more or less with the one before."""
    if vary == "seldom":
        return (dice.random((rows, width)) < 0.01) * dice.integers(0, 256, (rows, width), dtype=np.uint8)
    if vary == "late":
        return np.where(np.arange(rows)[:, None] < rows * 3 // 4, 7, dice.integers(0, 256, (rows, width))).astype(np.uint8)
    if vary == "once":
        return np.where(np.arange(rows)[:, None] < rows * 3 // 4, dice.bytes(1)[0], 9).repeat(width, 1).astype(np.uint8)
    if vary == "count":
        counted = np.zeros((rows, max(8, width)), np.uint8)
        counted[:, :8] = (np.arange(rows, dtype="<u8") + dice.integers(0, 2**40)).view(np.uint8).reshape(-1, 8)
        return counted[:, :width]
    return dice.integers(0, {"not": 1, "little": 2, "all": 256}[vary], (rows, width), dtype=np.uint8)


@st.composite
def blocks(draw):
    rows = draw(st.sampled_from([1, 2, 5, 70, 300, 900]))
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    pieces = []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            pieces.append(dice.bytes(draw(st.sampled_from([0, 1, 2, 3, 20, 300, 600, 33_000]))))
        else:
            width = draw(st.sampled_from([1, 2, 5, 8, 16, 56]))
            vary = draw(st.sampled_from(["not", "little", "all", "count", "seldom", "late", "once"]))
            pieces.append(bytes_that(vary, dice, draw(st.sampled_from([rows, rows, 1])), width + 3)[:, :width])
    start = draw(st.integers(0, rows - 1))
    chosen = dice.integers(0, rows, rows, dtype=np.uint32) if draw(st.booleans()) else None
    return Block([b"\n", *pieces], rows - start, start, chosen)


@settings(deadline=None)
@given(st.lists(blocks(), max_size=4), st.binary(max_size=40), st.binary(max_size=4))
def test_requests(described, head, tail):
    size = len(head) + len(tail) + sum(block.count * packing.wire.width(block.pieces) for block in described)
    request = Request("/v1/traces", 1, size, head, tuple(described), tail)
    rows = [
        b"".join(piece if isinstance(piece, bytes) else bytes(piece[0 if len(piece) == 1 else row]) for piece in block.pieces)
        for block in described
        for row in (range(block.start, block.start + block.count) if block.chosen is None else block.chosen[block.start :])
    ]
    assert bytes(request.body) == b"".join((head, *rows, tail))
    fast, slow = both(lambda: gzip.decompress(compressed(request, Compression.GZIP)))
    assert fast == slow == bytes(request.body)
    if KERNEL is not None:
        parts = tuple((tuple(block.pieces), block.chosen, block.start, block.count) for block in described)
        assert gzip.decompress(KERNEL.gzip(head, parts, tail)) == slow


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("width", [8, 13])
def test_each_bit_that_differs_where_none_did_before_is_told(width, stays):
    for bit in range(8 * width):
        rows = np.arange(400 * width, dtype=np.uint32).reshape(400, width).astype(np.uint8)
        rows[:, : bit // 8 + 1] = 7
        rows[300 : None if stays else 301, bit // 8] ^= 1 << bit % 8
        block = Block([b"before", rows, b"behind"], 400)
        request = Request("/v1/traces", 400, 400 * (width + 12), b"", (block,))
        fast, slow = both(lambda made=request: gzip.decompress(compressed(made, Compression.GZIP)))
        assert fast == slow == bytes(request.body)
        if KERNEL is not None:
            assert gzip.decompress(KERNEL.gzip(b"", ((tuple(block.pieces), None, 0, 400),), b"")) == slow
