"""Columns over memory that the kernel made, and what a worker loads for them."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import native

LOADS = """
import sys
import pyarrow as pa
import stream.cli.run, stream.worker.assemble
from stream import native
from stream.audit.buffers import null_texts

native.series("texts", pa.array(["a"], pa.string_view()))
null_texts("nothing", 3)
print("pyarrow.compute" in sys.modules)
"""


def test_a_worker_does_not_load_what_takes_nine_mebibytes_and_is_rarely_needed():
    assert subprocess.run([sys.executable, "-c", LOADS], check=True, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array(["a", None, "a text that is not stored in its view"], pa.string_view()), pl.String()),
        (pa.array([b"\xff", None], pa.binary_view()), pl.Binary()),
        (pa.array([1, None, 3], pa.int32()), pl.Int32()),
        (pa.array([True, None], pa.bool_()), pl.Boolean()),
        (pa.array([[1], None, []], pa.large_list(pa.int64())), pl.List(pl.Int64())),
        (pa.array([{"a": 1}, None], pa.struct({"a": pa.int64()})), pl.Struct({"a": pl.Int64()})),
        (pa.array([], pa.string_view()), pl.String()),
    ],
    ids=lambda value: str(value) if isinstance(value, pl.DataType) else "",
)
def test_a_column_has_the_name_and_the_values_of_the_array(values, kind):
    column = native.series("name", values)
    assert (column.name, column.dtype, column.to_list()) == ("name", kind, values.to_pylist())


def test_the_memory_is_that_of_the_array():
    values = pa.array(range(1000), pa.int64())
    column = native.series("name", values)
    assert column.to_numpy().__array_interface__["data"][0] == values.buffers()[1].address


def memory(values):
    """An array that begins with its memory, as a column that the kernel or NumPy might have made."""
    validity, *buffers = values.buffers()
    nulls, rows = values.null_count, len(values)
    if pa.types.is_struct(values.type):
        fields = tuple((values.type.field(index).name, memory(values.field(index))) for index in range(values.type.num_fields))
        return native.Memory(native.Kind.STRUCT, rows, validity, (), nulls, fields)
    if pa.types.is_large_list(values.type):
        return native.Memory(native.Kind.LIST, rows, validity, (buffers[0],), nulls, (("item", memory(values.values)),))
    if pa.types.is_decimal(values.type):
        return native.Memory(f"d:{values.type.precision},{values.type.scale}", rows, validity, (*buffers,), nulls)
    return native.Memory(next(kind for kind, arrow in native._ARROW.items() if arrow == values.type), rows, validity, (*buffers,), nulls)


ARRAYS = {
    "x": pa.array(["a", None, "a text that is not stored in its view", ""], pa.string_view()),
    "y": pa.array([1, 2, 3, 4], pa.int64()),
    "z": pa.array([[1], None, [], [2, None]], pa.large_list(pa.int32())),
    "d": pa.array([Decimal("1.25"), None, Decimal("-3.50"), Decimal(0)], pa.decimal128(20, 2)),
    "b": pa.array([True, None, False, True], pa.bool_()),
    "s": pa.array(
        [{"p": 1, "q": "a"}, {"p": None, "q": "b" * 30}, {"p": 3, "q": None}, {"p": 4, "q": ""}],
        pa.struct({"p": pa.int64(), "q": pa.string_view()}),
    ),
    "t": pa.array([0, None, 10**15, -1], pa.timestamp("us", "UTC")),
    "m": pa.array([0, 1, None, -1], pa.timestamp("ms", "UTC")),
    "v": pa.array([b"\xff", None, b"x" * 13, b""], pa.binary_view()),
    **{
        str(kind): pa.array([0, None, 100, 1], kind)
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    **{str(kind): pa.array([0.5, None, -1.5, 1], kind) for kind in (pa.float32(), pa.float64())},
    "date": pa.array([date(2026, 1, 2), None, date(1970, 1, 1), date(1900, 1, 1)], pa.date32()),
}
KERNELS = pytest.mark.parametrize("kernel", [native.KERNEL, None], ids=["as installed", "without the kernel"])


@KERNELS
def test_columns_pass_to_polars_together_without_a_copy(kernel, monkeypatch):
    monkeypatch.setattr(native, "KERNEL", kernel)
    frame = native.frame([*ARRAYS], [memory(array) for array in ARRAYS.values()])
    assert frame.to_dict(as_series=False) == {name: array.to_pylist() for name, array in ARRAYS.items()}
    assert {name: frame[name].dtype for name in ARRAYS} == {name: pl.from_arrow(array).dtype for name, array in ARRAYS.items()}
    assert frame["y"].to_numpy().__array_interface__["data"][0] == ARRAYS["y"].buffers()[1].address
    assert [native.series(name, memory(array)).to_list() for name, array in ARRAYS.items()] == [
        array.to_pylist() for array in ARRAYS.values()
    ]


def test_columns_pass_to_arrow_together_without_a_copy():
    frame = native.frame([*"xyz"], [memory(ARRAYS[name]) for name in "xyz"])
    back = native.arrays([frame["z"], frame["y"], frame["y"]])
    assert [array.to_pylist() for array in back] == [ARRAYS["z"].to_pylist(), [1, 2, 3, 4], [1, 2, 3, 4]]
    assert {array.buffers()[1].address for array in back[1:]} == {ARRAYS["y"].buffers()[1].address}
    assert native.arrays([]) == []


@KERNELS
def test_memory_is_given_back_once_nobody_has_a_column_of_it(kernel, monkeypatch):
    monkeypatch.setattr(native, "KERNEL", kernel)
    kept, gone = bytearray(32), bytearray(32)
    frame = native.frame(["kept", "gone"], [native.Memory(native.Kind.INT64, 4, None, (buffer,)) for buffer in (kept, gone)])
    column = frame["kept"].slice(1)
    del frame
    gc.collect()
    with pytest.raises(BufferError):
        kept.append(0)
    assert column.to_list() == [0, 0, 0]
    # The last one is let go in a thread that has nothing else to do with the interpreter.
    with ThreadPoolExecutor(1) as pool:
        holder = [column]
        del column
        pool.submit(holder.clear).result()
    kept.append(0)
    gone.append(0)


def test_what_nobody_imports_is_given_back():
    if native.KERNEL is not None:
        buffer = bytearray(8)
        exported = native.KERNEL.exported(("", "+s", 1, 0, (None,), (("a", "l", 1, 0, (None, buffer), ()),)))
        with pytest.raises(BufferError):
            buffer.append(0)
        del exported
        buffer.append(0)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("no tuple", "must be a tuple"),
        (("a", "l", 1, 0, ()), "6"),
        (("a", "l", 1, 0, (), ()), "0 buffers are too few for the format l"),
        (("a", "vu", 1, 0, (None,), ()), "1 buffers are too few for the format vu"),
        (("a", "l", 1, 0, (None, "text"), ()), "bytes-like"),
        (("a", "+s", 1, 0, (None,), (("b", "l", 1, 0, (None, bytearray(8)), ()), 7)), "must be a tuple"),
        (("a", "l", "1", 0, (None, b""), ()), "int"),
    ],
)
def test_the_kernel_refuses_to_export_what_is_no_column(column, says):
    if native.KERNEL is not None:
        with pytest.raises((TypeError, ValueError), match=says):
            native.KERNEL.exported(column)


def test_the_rows_of_a_part_and_of_several_chunks_are_those_of_the_column():
    column = pl.concat([pl.Series("n", [1, 2, None]), pl.Series("n", [4, 5, 6])], rechunk=False)
    parts = [column, column.reverse()]
    for begin, length in ((0, 6), (2, 3), (5, 0)):
        assert [array.to_pylist() for array in native.arrays([part.slice(begin, length) for part in parts])] == [
            part.slice(begin, length).to_list() for part in parts
        ]
    assert native.arrays([pl.Series(["a"])], pl.CompatLevel.oldest())[0].type == pa.large_string()


VALUES = {
    pl.String(): st.text(st.characters(codec="utf-8"), max_size=3) | st.text("ab", min_size=11, max_size=15),
    pl.Binary(): st.binary(max_size=18),
    pl.Boolean(): st.booleans(),
    pl.Int8(): st.integers(-2, 2),
    pl.UInt16(): st.integers(0, 3),
    pl.Int32(): st.integers(-1, 1),
    pl.Int64(): st.integers(-(2**40), 2**40) | st.integers(0, 1),
    pl.Int128(): st.integers(-1, 1),
    pl.Float64(): st.sampled_from([0.0, -0.0, 1.5, float("nan")]),
    pl.Decimal(20, 2): st.decimals(-1, 1, places=2),
    pl.Date(): st.dates(),
    pl.Datetime("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
    pl.Time(): st.times(),
}
COLUMNS = st.sampled_from([*VALUES]).flatmap(
    lambda kind: st.lists(st.none() | VALUES[kind], max_size=24).map(lambda drawn: pl.Series(drawn, dtype=kind).alias("^a pattern$"))
)

IN_ARROW = COLUMNS.filter(lambda column: column.dtype != pl.Int128())
PLAINLY_NAMED = IN_ARROW.map(lambda column: column.alias("a"))


@given(column=IN_ARROW, begin=st.integers(0, 9), length=st.integers(0, 24))
def test_the_kernel_lends_the_memory_that_arrow_would(column, begin, length):
    part = column.slice(begin, length)
    (found,), arrow = native.lent([part]), part.to_arrow(compat_level=pl.CompatLevel.newest())
    known = native._lent(arrow)
    assert found[:3] == known[:3]
    assert (found.width, found.validity is None) == (known.width, known.validity is None)
    assert bytes(memoryview(found.values)) == bytes(known.values) if found.width else True
    for bits in (found.validity, found.values if not found.width else None):
        if bits is not None:
            read = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[found.offset :][: len(part)].astype(bool).tolist()
            valid = [value is not None for value in part]
            assert (
                read == valid
                if bits is found.validity
                else [one for one, there in zip(read, valid, strict=True) if there] == [value for value in part if value is not None]
            )
    assert (found.texts is None) == (known.texts is None)
    assert [bytes(memoryview(text)) for text in found.texts or ()] == [bytes(text) for text in known.texts or ()]


@pytest.mark.parametrize("begin", range(9))
def test_bits_are_lent_up_to_the_last_row(begin):
    for length in range(1, 16):
        bits, some = pl.Series([True, False, False] * 8), pl.Series([1, None, None] * 8)
        values, validity = (each.slice(begin, length) for each in (bits, some))
        (first, second), known = native.lent([values, validity]), [row % 3 == 0 for row in range(begin, begin + length)]
        for memory, offset in ((first.values, first.offset), (second.validity, second.offset)):
            if memory is None:
                assert all(known)
            else:
                assert np.unpackbits(np.frombuffer(memory, np.uint8), bitorder="little")[offset:][:length].astype(bool).tolist() == known


@KERNELS
def test_texts_are_lent_as_long_as_they_were_given(kernel, monkeypatch):
    monkeypatch.setattr(native, "KERNEL", kernel)
    texts = (b"a" * 33, b"b" * 5, b"c" * 70)
    view = np.array([20, int.from_bytes(b"cccc", "little"), 2, 50], np.uint32)
    (found,) = native.lent([native.series("", native.Memory(native.Kind.TEXT, 1, None, (view, *texts)))])
    assert [bytes(memoryview(text)) for text in found.texts or ()] == [*texts]


def test_columns_of_several_chunks_and_of_other_types_are_lent_too():
    chunks = pl.concat([pl.Series([1, 2]), pl.Series([3])], rechunk=False)
    duration = pl.Series([timedelta(1), None])
    category = pl.Series(["a", "b", "a"], dtype=pl.Categorical())
    assert [np.frombuffer(each.values, np.int64).tolist() for each in native.lent([chunks, duration.drop_nulls()])] == [
        [1, 2, 3],
        [86400 * 10**6],
    ]
    if native.KERNEL is not None:
        assert native.KERNEL.lent((chunks, category, pl.Series([[1]]), duration))[:3] == (None, None, None)
        for wrong in ([chunks], (1,)):
            with pytest.raises((TypeError, AttributeError)):
                native.KERNEL.lent(wrong)


def test_lent_memory_stays_when_the_column_goes():
    (found,) = native.lent([pl.Series(range(1000, 3000))])
    gc.collect()
    assert np.frombuffer(found.values, np.int64).tolist() == [*range(1000, 3000)]
    texts = native.lent([pl.Series(["t" * 40])])[0].texts
    gc.collect()
    assert texts is not None
    assert bytes(memoryview(texts[0])) == b"t" * 40


@KERNELS
def test_lent_memory_is_given_back_once_nobody_has_it(kernel, monkeypatch):
    monkeypatch.setattr(native, "KERNEL", kernel)
    numbers, text = bytearray(32), bytearray(20)
    view = np.array([20, 0, 0, 0], np.uint32)
    columns = [native.Memory(native.Kind.INT64, 1, None, (numbers,)), native.Memory(native.Kind.TEXT, 1, None, (view, text))]
    found = native.lent([native.series("", each) for each in columns])
    gc.collect()
    for buffer in (numbers, text):
        with pytest.raises(BufferError):
            buffer.append(0)
    assert bytes(memoryview((found[1].texts or ())[0])) == bytes(20)
    del found
    gc.collect()
    numbers.append(0)
    text.append(0)


@KERNELS
@given(PLAINLY_NAMED, PLAINLY_NAMED, st.data())
def test_columns_of_the_same_memory_are_equal(kernel, column, other, data):
    mask = pl.Series(data.draw(st.lists(st.booleans(), min_size=len(column), max_size=len(column))), dtype=pl.Boolean())
    begin, length = data.draw(st.integers(0, len(column))), data.draw(st.integers(0, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "KERNEL", kernel)
        for left, right in (
            (column, other),
            (column, column.filter(mask)),
            (column, column.slice(begin, length)),
            (column.slice(1), column.slice(begin, length)),
            (column.filter(mask), column.filter(mask)),
            (column.reverse(), column),
        ):
            if native.same_memory(left, right):
                assert left.equals(right, check_dtypes=True, null_equal=True)
        if column.null_count() == 0 and column.dtype != pl.Boolean():
            again = column.alias("a").to_frame().filter(mask).to_series()
            assert native.same_memory(column.filter(mask), again)
            assert native.same_memory(column, column.slice(0))
            assert native.same_memory(column.slice(begin, length), column.slice(begin, length))


@KERNELS
def test_different_memory_is_told_apart(kernel, monkeypatch):
    monkeypatch.setattr(native, "KERNEL", kernel)
    numbers, texts = pl.Series([1, 2, 1, 2]), pl.Series(["a", "b" * 20]).gather([0, 1, 0, 1])
    for column in (numbers, texts):
        assert [native.same_memory(column.slice(0, 2), column.slice(begin, 2)) for begin in range(3)] == [True, False, True]
    assert not native.same_memory(numbers, texts)
    assert not native.same_memory(numbers, numbers.slice(1))
    assert not native.same_memory(numbers, numbers.cast(pl.UInt64))
    # Equal prefixes and lengths, at the same places of different texts.
    assert not native.same_memory(*(pl.Series(["abcd" + letter * 20]) for letter in "xy"))


@KERNELS
@given(columns=st.lists(COLUMNS, max_size=4), repeats=st.integers(1, 4), share=st.integers(1, 8), begin=st.integers(0, 3))
def test_few_distinct_values_are_as_many_as_polars_counts(kernel, columns, repeats, share, begin):
    given_columns = [pl.concat([column] * repeats).slice(begin) for column in columns]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "KERNEL", kernel)
        found = native.few_distinct(given_columns, share)
    assert found == [column.n_unique() * share <= len(column) for column in given_columns]


@pytest.mark.parametrize("kind", [pl.String(), pl.Int64()])
@pytest.mark.parametrize(("distinct", "few"), [(512, True), (513, False)])
def test_the_limit_is_exact_in_a_full_sample(kind, distinct, few):
    column = pl.Series([number % distinct for number in range(4096)]).cast(kind)
    assert native.few_distinct([column, column.reverse(), pl.Series([1])], 8) == [few, few, False]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ((bytes(10), 4, None, 1), "values of 4 bytes"),
        ((bytes(34), 17, None, 1), "values of 17 bytes"),
        ((bytes(4), -1, None, 1), "values of -1 bytes"),
        ((bytes(65_535), 1, None, 1), "65535 rows"),
        ((bytes(4), 4, None, -1), "few values of -1"),
        ((pa.array(["a" * 20], pa.string_view()).buffers()[1], 0, (), 1), "view"),
        ("no tuple", "tuple"),
    ],
)
def test_the_kernel_refuses_columns_that_it_cannot_read(column, says):
    if native.KERNEL is not None:
        with pytest.raises((ValueError, TypeError), match=says):
            native.KERNEL.few((column,))


@pytest.mark.parametrize("values", [["a", "b" * 20, "a", "b" * 20], [1, 2, 1, 2]], ids=["texts", "numbers"])
def test_a_column_that_begins_within_its_memory_is_read_from_there(values):
    column = pl.Series(values)
    parts = [column.slice(begin, length) for begin, length in ((0, 2), (1, 2), (3, 1))]
    assert native.few_distinct([*parts, column], 2) == [False, False, False, True]
    assert native.few_distinct([pl.concat([column, column.slice(3, 1)]).slice(3)], 2) == [True]


@pytest.mark.parametrize(("given_bytes", "kept_bytes"), [(bytes(8), bytes(7)), (bytes(5), bytes(4))])
def test_the_kernel_refuses_numbers_of_rows_that_are_not_whole(given_bytes, kept_bytes):
    if native.KERNEL is not None:
        with pytest.raises(ValueError, match=f"{len(given_bytes)} and {len(kept_bytes)} bytes"):
            native.KERNEL.places(given_bytes, kept_bytes)


@pytest.mark.parametrize("rows", [1 << 15, 1 << 16], ids=["with the lock", "without it"])
def test_many_places_are_found_with_and_without_the_lock(rows):
    given_rows, kept = np.arange(rows, dtype=np.uint32), np.arange(0, rows, 3, dtype=np.uint32)
    if native.KERNEL is not None:
        assert np.array_equal(np.frombuffer(native.KERNEL.places(given_rows, kept), np.uint32), kept)
        assert native.KERNEL.places(given_rows, np.array([*kept, rows], np.uint32)) is None


@pytest.mark.parametrize("absent", [[0], [4], [3, 4, 5], [4, 9], [2, 3, 4]])
def test_the_kernel_finds_no_places_if_a_row_is_missing_among_others(absent):
    """A wrong place would give a row the lineage of another one."""
    if native.KERNEL is not None:
        assert native.KERNEL.places(np.array([2, 3, 5, 9], np.uint32), np.array(absent, np.uint32)) is None
