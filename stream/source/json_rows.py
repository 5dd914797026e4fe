"""Rows of Arrow batches as JSON objects that keep every value.

Bytes are base64, decimals and times text, moments in UTC, as the decoders of JSON read them. What JSON cannot express is text too: NaN,
Infinity and -Infinity. So a value is never changed: it is read, or its record is refused by the decoder.
"""

from __future__ import annotations

import io
import math
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


class NoJson(ValueError):
    """A column is of a type that has no form in JSON; the argument says which."""


def rows_as_json(batch: pa.RecordBatch) -> list[bytes]:
    """One JSON object per row.

    Raises:
        NoJson: a column is of a type that has none.
        ArrowException: the buffers contradict each other, or a text is not UTF-8.
    """
    batch.validate(full=True)
    if not batch.num_columns:
        return [b"{}"] * batch.num_rows
    names = batch.schema.names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"there are two columns {twice!r}"
        raise NoJson(msg)
    arrays = [_plain(batch.column(at), names[at]) for at in range(batch.num_columns)]
    if all(map(_is_finite, arrays)):
        out = io.BytesIO()
        pl.DataFrame(pa.Table.from_arrays(arrays, names=names)).write_ndjson(out)
        rows = out.getvalue().splitlines()
    else:
        columns = [array.to_pylist() for array in arrays]
        rows = [msgspec.json.encode(finite(dict(zip(names, row, strict=True)))) for row in zip(*columns, strict=True)]
    if len(rows) != batch.num_rows:
        msg = f"{batch.num_rows} rows became {len(rows)} lines"
        raise NoJson(msg)
    return rows


def _plain(array: pa.Array, name: str) -> pa.Array:  # noqa: PLR0911 - one per kind
    """``array`` in types whose values both writers write alike, at every level."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage, name)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode(), name)
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array), name)
    if pa.types.is_struct(kind):
        return _struct(array, name)
    if pa.types.is_map(kind):
        inner = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        return _plain(array.cast(pa.list_(inner)), name)
    if _is_list(kind):
        values = _plain(array.flatten(), name)
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([np.zeros(1, np.int64), lengths.cumsum(dtype=np.int64)])
        return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=array.is_null() if array.null_count else None)
    return _leaf(array, name)


def _struct(array: pa.StructArray, name: str) -> pa.Array:
    fields = [array.type.field(at).name for at in range(array.type.num_fields)]
    if not fields or len(set(fields)) != len(fields):
        msg = f"column {name!r} has objects of the type {array.type}, whose fields cannot be told apart"
        raise NoJson(msg)
    inner = [_plain(each, name) for each in array.flatten()]
    return pa.StructArray.from_arrays(inner, names=fields, mask=array.is_null() if array.null_count else None)


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(each(kind) for each in kinds)


def _leaf(array: pa.Array, name: str) -> pa.Array:  # noqa: PLR0911 - one per kind
    kind = array.type
    if pa.types.is_decimal(kind):
        return _digits(array)
    if pa.types.is_timestamp(kind):
        return _moments(array)
    if pa.types.is_date(kind):
        return _dates(array)
    if pa.types.is_time(kind):
        return array.cast(pa.string())
    if pa.types.is_duration(kind):
        return array.cast(pa.int64())
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        # The shortest digits that mean the value, as anybody writes it.
        return array.cast(pa.float32()).cast(pa.string()).cast(pa.float64())
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary(kind) or kind == pa.binary_view():
        return _base64(array)
    known = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string)
    if any(each(kind) for each in known) or kind == pa.string_view():
        return array
    msg = f"column {name!r} is of the type {kind}, which has no form in JSON: leave it out, or exclude the object"
    raise NoJson(msg)


def _base64(array: pa.Array) -> pa.Array:
    """Polars does not write bytes to JSON, and decoders read them in this form."""
    return pl.Series(pl.from_arrow(array.cast(pa.large_binary()))).bin.encode("base64").to_arrow(compat_level=pl.CompatLevel.oldest())


def _digits(array: pa.Array) -> pa.Array:
    """Decimals as digits with a point; Arrow writes some of them with an exponent."""
    texts = array.cast(pa.string())
    if pc.any(pc.match_substring(texts, "E")).as_py():
        return pa.array([None if value is None else f"{value:f}" for value in array.to_pylist()], pa.string())
    return texts


_TICKS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The years 1 to 9999 in days since 1970."""


def _moments(array: pa.Array) -> pa.Array:
    """Moments in ISO 8601 with all digits, in UTC if they have a zone; a number of ticks where the year has not four digits."""
    ticks = array.cast(pa.int64())
    per_day = 86_400 * _TICKS[array.type.unit]
    suffix = "" if array.type.tz is None else "Z"
    first, last = max(_FIRST_DAY * per_day, -(2**63)), min((_LAST_DAY + 1) * per_day - 1, 2**63 - 1)
    fits = pc.and_(pc.greater_equal(ticks, first), pc.less_equal(ticks, last))
    naive = pc.if_else(fits, ticks, pa.scalar(0, pa.int64())).cast(pa.timestamp(array.type.unit))
    texts = pc.replace_substring(naive.cast(pa.string()), " ", "T")
    texts = pc.binary_join_element_wise(texts, suffix, "") if suffix else texts
    return pc.if_else(fits, texts, ticks.cast(pa.string()))


def _dates(array: pa.Array) -> pa.Array:
    days = array.cast(pa.int32()) if pa.types.is_date32(array.type) else pc.divide(array.cast(pa.int64()), 86_400_000)
    fits = pc.and_(pc.greater_equal(days, _FIRST_DAY), pc.less_equal(days, _LAST_DAY))
    if pa.types.is_date64(array.type):
        fits = pc.and_(fits, pc.equal(pc.multiply(days, 86_400_000), array.cast(pa.int64())))
    texts = pc.if_else(fits, days, pa.scalar(0, days.type)).cast(pa.int32()).cast(pa.date32()).cast(pa.string())
    return pc.if_else(fits, texts, days.cast(pa.string()))


def _is_finite(array: pa.Array) -> bool:
    kind = array.type
    if pa.types.is_floating(kind):
        return bool(pc.all(pc.is_finite(array)).as_py() is not False)
    if pa.types.is_struct(kind):
        return all(map(_is_finite, array.flatten()))
    return not _is_list(kind) or _is_finite(array.flatten())


def finite(value: Any) -> Any:
    """``value`` with text in place of the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return value
