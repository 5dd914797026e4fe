"""Columns over memory that the kernel made, and what a worker loads for them."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pyarrow as pa
import pytest

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
