"""Columns over memory that the kernel made, and what a worker loads for them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC

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


def test_columns_pass_to_polars_and_back_together_without_a_copy():
    arrays = [
        pa.array(["a", None, "a text that is not stored in its view"], pa.string_view()),
        pa.array([1, 2, 3], pa.int64()),
        pa.array([[1], None, []]),
    ]
    frame = native.frame(["x", "y", "z"], arrays)
    assert frame.to_dict(as_series=False) == dict(zip("xyz", (array.to_pylist() for array in arrays), strict=True))
    assert frame["y"].to_numpy().__array_interface__["data"][0] == arrays[1].buffers()[1].address
    back = native.arrays([frame["z"], frame["y"], frame["y"]])
    assert [array.to_pylist() for array in back] == [arrays[2].to_pylist(), [1, 2, 3], [1, 2, 3]]
    assert {array.buffers()[1].address for array in back[1:]} == {arrays[1].buffers()[1].address}
    assert native.arrays([]) == []


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


@pytest.mark.parametrize("kernel", [native.KERNEL, None], ids=["as installed", "without the kernel"])
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
def test_an_array_that_begins_within_its_memory_is_read_from_there(values):
    array = pa.array(values, pa.string_view() if isinstance(values[0], str) else pa.int64())
    if native.KERNEL is not None:
        known = [(*native._values(array.slice(begin, length)), 1) for begin, length in ((0, 2), (1, 2), (3, 1), (4, 0))]
        assert native.KERNEL.few((*known, (*native._values(array), 2))) == (False, False, True, True, True)
        assert native.KERNEL.few(((*native._values(pa.concat_arrays([array.slice(0, 1)] * 3 + [array]).slice(0, 4)), 1),)) == (True,)
        assert native.KERNEL.few(((*native._values(pa.concat_arrays([array, array.slice(3, 1)]).slice(3)), 1),)) == (True,)


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
