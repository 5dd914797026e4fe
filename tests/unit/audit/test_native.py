"""The audit with and without the compiled kernel: equal bytes and equal numbers for all records.

Without a kernel, both runs would use the Python code; tests/unit/transform/decoders/test_json_kernel.py makes sure that there is one.
"""

from __future__ import annotations

import gzip
from contextlib import contextmanager

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit import columns, context, ids, packing, wire
from stream.audit import digits as digits_module
from stream.audit import placement as placement_module
from stream.audit import set_hash as hashes
from stream.audit.packing import Block, Compression, Request, compressed
from stream.batch import ROW
from stream.contracts import Transformed
from stream.native import KERNEL, views
from tests.unit.audit.test_ledger import ENDS, PLACEMENT, segment

# Each says itself whether the kernel is used, so without it they would do nothing else.
pytestmark = pytest.mark.compares_kernel
PARTS = (columns, context, digits_module, ids, packing, placement_module, hashes, wire)


@contextmanager
def without_kernel():
    for part in PARTS:
        part.KERNEL = None
    try:
        yield
    finally:
        for part in PARTS:
            part.KERNEL = KERNEL


def both(work):
    with without_kernel():
        without = work()
    return work(), without


digits = st.integers(0, 10**60).map(str)
near = st.tuples(st.integers(10**54, 10**56), st.lists(st.integers(0, 2**40), min_size=1, max_size=40)).map(
    lambda drawn: [str(drawn[0] + step * 2**30) for step in drawn[1]]
)
sequences = st.one_of(near, st.lists(digits, min_size=1, max_size=40), st.lists(st.sampled_from(["0", "7" * 18, "1" + "0" * 18, "9" * 72])))


@settings(deadline=None)
@given(sequences, st.integers(0, 2**32 - 1))
def test_ids_and_set_hashes_are_the_same_with_and_without_the_kernel(numbers, sub):
    frame = named(numbers, [sub] * len(numbers))
    fast, slow = both(lambda: [array.tobytes() for array in ids.record_ids(frame, "events", "shardId-0", "app")])
    assert fast == slow
    fast, slow = both(lambda: hashes.SetHash.of(frame["seq"], frame["sub"]))
    assert fast == slow


def named(numbers, subs):
    return pl.DataFrame({"seq": numbers, "sub": subs}, schema={"seq": pl.String, "sub": pl.UInt32})


def hashed_one_by_one_and_in_eights(frame):
    """The kernel's result for records one at a time, and for eight at a time if the processor supports it."""
    given = (*views(frame["seq"]), frame["sub"].to_numpy())
    for quick in (False, True) if KERNEL is not None else ():
        made = KERNEL.record_ids(*given, (1, 2, 3, 4), quick)
        yield KERNEL.set_hash(*given, quick), made and tuple(map(bytes, made))


lengths = st.sampled_from([1, 17, 18, 19, 35, 36, 37, 56, 63, 64, 65, 72])
runs = st.lists(st.tuples(lengths, st.integers(0, 10**72), st.lists(st.integers(0, 10**36), min_size=1, max_size=20)), max_size=5).map(
    lambda drawn: [str(begin + step).zfill(72)[-length:] for length, begin, steps in drawn for step in steps]
)


@settings(deadline=None)
@given(runs, st.integers(0, 2**32 - 1))
def test_hashing_eight_records_at_once_gives_the_same_as_one_by_one(numbers, sub):
    frame = named(numbers, [(sub + row) % 2**32 for row in range(len(numbers))])
    with without_kernel():
        wanted = hashes.SetHash.of(frame["seq"], frame["sub"]).value
    made = list(hashed_one_by_one_and_in_eights(frame))
    assert made[:1] == made[1:]
    assert all(high << 64 | low == wanted for (high, low), _ in made)


@given(st.integers(8, 30), st.data())
def test_a_character_that_is_not_a_digit_is_detected_at_every_place(rows, data):
    numbers = [str(10**55 + row) for row in range(rows)]
    row, place = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, 55))
    numbers[row] = numbers[row][:place] + data.draw(st.sampled_from("/:a- \x7f")) + numbers[row][place + 1 :]
    assert {*hashed_one_by_one_and_in_eights(named(numbers, [0] * rows))} <= {(None, None)}


@pytest.mark.parametrize("wrong", ["12a", "-1", "1" * 8 + ":" + "1" * 9, "1" * 73 + "x"])
def test_a_sequence_number_with_other_characters_is_refused_with_and_without_the_kernel(wrong):
    series = pl.Series(["1" * 56, wrong, "2" * 56])
    for way in (without_kernel, contextmanager(lambda: iter([None]))):
        with way(), pytest.raises(ValueError, match="decimal digits only"):
            hashes.SetHash.of(series, pl.Series([0, 0, 0], dtype=pl.UInt32))


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=300), st.booleans())
def test_texts_with_common_prefixes_are_encoded_the_same(texts, rising):
    column = pl.Series(sorted(texts) if rising else texts, dtype=pl.String)
    fast, slow = both(lambda: columns.parquet({"text": column}, len(texts), {}))
    assert fast == slow
    fast, slow = both(lambda: ids.characters(column, 160).tobytes())
    assert fast == slow


@pytest.mark.parametrize("ends", [ENDS, [1], [], ENDS * 50, [ENDS[1]] * 200 + [1]])
def test_ledger_segments_have_the_same_bytes_with_and_without_the_kernel(ends):
    fast, slow = both(lambda: segment(ends).body)
    assert fast == slow


INTEGERS = {pl.Int32: 2**31, pl.Int64: 2**63, pl.UInt32: 0, pl.UInt16: 0}


def column_of(kind, rows):
    if kind == pl.String:
        values = st.one_of(st.text(max_size=40), st.integers(10**55, 10**55 + 500).map(str))
    else:
        most = 2**16 if kind == pl.UInt16 else 2**64 if kind == pl.Int64 else 2**32
        values = st.one_of(st.integers(-INTEGERS[kind], most - INTEGERS[kind] - 1), st.integers(0, 3))
    some, none = st.lists(values, min_size=rows, max_size=rows), st.just([None] * rows)
    holes = st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows)
    return st.one_of(some, holes, none).map(lambda drawn: pl.Series(drawn, dtype=kind))


@settings(deadline=None)
@given(st.data(), st.integers(1, 300), st.integers(0, 20))
def test_parquet_pages_are_the_same_and_polars_reads_them_back(data, rows, skipped):
    drawn = {kind.__name__: data.draw(column_of(kind, rows + skipped))[skipped:] for kind in (pl.String, *INTEGERS)}
    fast, slow = both(lambda: columns.parquet(drawn, rows, {}))
    assert fast == slow
    assert pl.read_parquet(fast).equals(pl.DataFrame(drawn), null_equal=True)
    given = columns._kernel_arguments(list(drawn.values()))
    if KERNEL is not None:
        assert [bytes(page) for page, *_ in KERNEL.chunks(given, False)] == [bytes(page) for page, *_ in KERNEL.chunks(given, True)]


@pytest.mark.parametrize("width", range(32))
def test_integers_of_all_widths_are_encoded_the_same(width):
    values = np.random.default_rng(width).integers(0, 2**width, 700)
    rising = np.cumsum(values)
    drawn = {
        "narrow": pl.Series(values, dtype=pl.Int32),
        "rising": pl.Series(rising.astype(np.uint32)),
        "broad": pl.Series(rising, dtype=pl.Int64),
    }
    fast, slow = both(lambda: columns.parquet(drawn, len(values), {}))
    assert fast == slow
    assert pl.read_parquet(fast).equals(pl.DataFrame(drawn))


@settings(deadline=None)
@given(st.integers(1, 600), st.sampled_from([1, 2, 3, 5, 17, 300, 40_000]), st.booleans(), st.integers(0, 2**32))
def test_dictionary_pages_are_encoded_the_same(rows, kinds, some_null, seed):
    rng = np.random.default_rng(seed)
    texts = [f"{number:05}" for number in rng.integers(0, kinds, rows)]
    column = pl.Series([None if some_null and rng.integers(0, 3) == 0 else text for text in texts], dtype=pl.String)
    fast, slow = both(lambda: columns.parquet({"n": columns.dictionary_encoded(column)}, rows, {}))
    assert fast == slow
    assert pl.read_parquet(fast)["n"].equals(column, null_equal=True)


placements = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 9) | st.integers(0, 2**31 - 1)), max_size=60)


@given(placements, st.booleans(), st.integers(10, 20), st.integers(0, 9))
def test_the_first_row_of_each_record_is_found_the_same(rows, rising, records, first):
    rows = sorted(rows, key=lambda row: row[0]) if rising else rows
    placement = pl.DataFrame(rows, schema=PLACEMENT, orient="row")
    fast, slow = both(lambda: [column.to_list() for column in placement_module.destinations(records, 1, placement, first)])
    assert fast == slow
    order = [row for row, _, _ in rows]
    considered = rows if order == sorted(order) else sorted(rows)
    firsts = {row: (file + first, line) for row, file, line in reversed(considered)}
    assert fast == [[firsts.get(record, (None, None))[part] for record in range(records)] for part in (0, 1)]


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 45), max_size=3), st.lists(st.integers(0, 45), max_size=3))
def test_rows_per_record_are_counted_the_same(counts, more, others):
    written = [record for record, count in enumerate(counts) for _ in range(count)] + more
    settled = [record for record, count in enumerate(counts) if not count] + others
    made = Transformed(pl.DataFrame({ROW: written}, schema={ROW: pl.UInt32}), pl.DataFrame({ROW: settled}, schema={ROW: pl.UInt32}), 0)

    def rows():
        try:
            return placement_module.rows_written(made, len(counts)).to_list()
        except ValueError as error:
            return str(error)

    fast, slow = both(rows)
    assert fast == slow
    exact = {*written, *settled} == {*range(len(counts))} and len(settled) == len({*settled} - {*written})
    assert isinstance(fast, list) == exact
    if exact:
        assert fast == [written.count(record) for record in range(len(counts))]


words = st.sampled_from([b'"traceparent"', b'"tp"', b'"x"', b'"tracepar', b"traceparent", b'ep"'])


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.binary(max_size=90), words), max_size=6).map(b"".join),
        max_size=30,
    ),
    st.integers(0, 3),
)
def test_payloads_with_a_trace_context_are_found_the_same(payloads, skipped):
    column = pl.Series(payloads, dtype=pl.Binary)[skipped:]
    fast, slow = both(lambda: context._containing(column, ["tp", "traceparent"]).to_list())
    for word in (b'"tp"', b'"traceparent"', b"x") if KERNEL is not None else ():
        assert bytes(KERNEL.find(*views(column), word, False)) == bytes(KERNEL.find(*views(column), word, True))
    assert fast == slow == [at for at, body in enumerate(payloads[skipped:]) if b'"tp"' in body or b'"traceparent"' in body]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_numbers_are_padded_the_same(values):
    fast, slow = both(lambda: wire.digits(np.array(values, np.uint32)).tolist())
    assert fast == slow
    assert len(fast) == len(values)


def byte_columns(vary, rng, rows, width):
    """A field of ``rows`` rows, in which messages share more or less with the message before."""
    if vary == "seldom":
        return (rng.random((rows, width)) < 0.01) * rng.integers(0, 256, (rows, width), dtype=np.uint8)
    if vary == "late":
        return np.where(np.arange(rows)[:, None] < rows * 3 // 4, 7, rng.integers(0, 256, (rows, width))).astype(np.uint8)
    if vary == "once":
        return np.where(np.arange(rows)[:, None] < rows * 3 // 4, rng.bytes(1)[0], 9).repeat(width, 1).astype(np.uint8)
    if vary == "count":
        counted = np.zeros((rows, max(8, width)), np.uint8)
        counted[:, :8] = (np.arange(rows, dtype="<u8") + rng.integers(0, 2**40)).view(np.uint8).reshape(-1, 8)
        return counted[:, :width]
    return rng.integers(0, {"not": 1, "little": 2, "all": 256}[vary], (rows, width), dtype=np.uint8)


@st.composite
def blocks(draw):
    rows = draw(st.sampled_from([1, 2, 5, 70, 300, 900]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pieces = []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            pieces.append(rng.bytes(draw(st.sampled_from([0, 1, 2, 3, 20, 300, 600, 33_000]))))
        else:
            width = draw(st.sampled_from([1, 2, 5, 8, 16, 56]))
            vary = draw(st.sampled_from(["not", "little", "all", "count", "seldom", "late", "once"]))
            pieces.append(byte_columns(vary, rng, draw(st.sampled_from([rows, rows, 1])), width + 3)[:, :width])
    start = draw(st.integers(0, rows - 1))
    chosen = rng.integers(0, rows, rows, dtype=np.uint32) if draw(st.booleans()) else None
    return Block([b"\n", *pieces], rows - start, start, chosen)


@settings(deadline=None)
@given(st.lists(blocks(), max_size=4), st.binary(max_size=40), st.binary(max_size=4))
def test_a_request_is_the_concatenation_of_its_blocks(described, head, tail):
    size = len(head) + len(tail) + sum(block.count * packing.wire.width(block.pieces) for block in described)
    request = Request("/v1/traces", 1, size, head, tuple(described), tail)
    rows = [
        b"".join(piece if isinstance(piece, bytes) else bytes(piece[0 if len(piece) == 1 else row]) for piece in block.pieces)
        for block in described
        for row in (range(block.start, block.start + block.count) if block.chosen is None else block.chosen[block.start :])
    ]
    assert bytes(request.body) == b"".join((head, *rows, tail))
    unpacked(request)


def unpacked(request):
    """Both codecs, with and without the kernel, decompress to the request's bytes."""
    body = bytes(request.body)
    assert both(lambda: gzip.decompress(compressed(request, Compression.GZIP))) == (body, body)
    assert both(lambda: zstandard(compressed(request, Compression.ZSTD), len(body))) == (body, body)
    if KERNEL is not None:
        blocks = tuple((tuple(block.pieces), block.chosen, block.start, block.count) for block in request.blocks)
        assert gzip.decompress(memoryview(KERNEL.gzip(request.head, blocks, request.tail))) == body
        assert zstandard(memoryview(KERNEL.zstd(request.head, blocks, request.tail)), len(body)) == body


def test_halves_of_a_request_are_compressed_as_well_as_the_whole():
    rng = np.random.default_rng(5)
    head = b"\n\x02ab"
    block = Block([b"\x12\x96\x01", rng.integers(0, 256, (4000, 16), dtype=np.uint8), b"x" * 134], 4000)
    (request,) = packing.packed("/v1/traces", (head, head), [block], 2**20)
    for half in packing.split(request):
        assert half.size > packing.SMALL
        for compression in (Compression.GZIP, Compression.ZSTD):
            assert len(compressed(half, compression)) < half.size / 4
        unpacked(half)


def zstandard(frame, size):
    """The contents of a frame that states its size, as the reference decoder reads it, at once and in pieces."""
    whole: bytes = pa.Codec("zstd").decompress(frame, size, asbytes=True)
    assert pa.input_stream(pa.BufferReader(frame), compression="zstd").read() == whole
    return whole


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("width", [8, 13, 24, 45])
def test_every_single_changed_bit_survives_compression(width, stays):
    for bit in range(8 * width):
        rows = np.arange(400 * width, dtype=np.uint32).reshape(400, width).astype(np.uint8)
        rows[:, : bit // 8 + 1] = 7
        rows[300 : None if stays else 301, bit // 8] ^= 1 << bit % 8
        block = Block([b"before", rows, b"behind"], 400)
        request = Request("/v1/traces", 400, 400 * (width + 12), b"", (block,))
        unpacked(request)


@given(
    st.lists(st.tuples(st.integers(1, 70), st.sampled_from([1, 2, 3, 4, 7, 9, 31, 66, 130, 700])), min_size=1, max_size=45),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_runs_of_many_lengths_survive_compression(lengths, seed):
    rng = np.random.default_rng(seed)
    pieces = [piece for width, still in lengths for piece in (rng.integers(0, 256, (400, width), dtype=np.uint8), rng.bytes(still))]
    width = packing.wire.width(pieces)
    unpacked(Request("/v1/traces", 400, 400 * width, b"", (Block(pieces, 400),)))
