"""Integer arithmetic in expressions: sums, differences and products that do not wrap around.

Polars computes in the type of the operands, and a result that does not fit wraps around: ``month(t) * 100`` has 8 bits, so December gives
-80, and ``a - b`` of two unsigned columns gives four billion instead of -1. SQL has no such behaviour, and nobody would spot it in the
output. Therefore both operands are widened to 128 bits first. The result of two 64-bit numbers always fits, except for the product of two
of the largest unsigned ones: it comes out negative, which an unsigned column refuses. A product of three may not fit.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Final

import polars as pl
from polars.exceptions import ComputeError, PolarsError

WIDE: Final = pl.Int128()

_OPERATORS: Final = frozenset({"Plus", "Minus", "Multiply"})
_FUNCTIONS: Final = ('"Abs"', '{"Sql": {"Binary": "Mul"}}')
_MARK: Final = "\0"


def _serialized(expression: pl.Expr) -> Any:
    return json.loads(expression.meta.serialize(format="json"))


_CAST: Final = json.dumps(_serialized(pl.col(_MARK).cast(WIDE)))
_HOLE: Final = json.dumps(_serialized(pl.col(_MARK)))


def exact(expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """``expression`` over columns of ``schema``, with sums, differences, products and absolute values of integers computed in 128 bits.

    Everything else stays as it was. An expression without such operations, or with an infinite constant, is returned unchanged.
    """
    tree = _serialized(expression)
    try:
        widened = _widened(tree, schema)
        return expression if widened is tree else _expression(widened)
    except ComputeError:
        return expression  # it contains an infinity, which JSON cannot express


def narrowed(before: pl.DataType, after: pl.DataType) -> pl.DataType:
    """The type of a column whose expression has type ``after`` now and had ``before``: 64 bits where it is ``WIDE``."""
    return after if after != WIDE else before if before == pl.UInt64() else pl.Int64()


def _expression(tree: Any) -> pl.Expr:
    return pl.Expr.deserialize(io.StringIO(json.dumps(tree)), format="json")


def _widened(tree: Any, schema: Mapping[str, pl.DataType]) -> Any:
    """The widened ``tree``; the same object if there is nothing to widen."""
    if isinstance(tree, list):
        items = [_widened(each, schema) for each in tree]
        return tree if all(new is old for new, old in zip(items, tree, strict=True)) else items
    if not isinstance(tree, dict):
        return tree
    parts = {key: _widened(value, schema) for key, value in tree.items()}
    if all(parts[key] is value for key, value in tree.items()):
        parts = tree
    binary, function = parts.get("BinaryExpr"), parts.get("Function")
    if isinstance(binary, dict) and binary["op"] in _OPERATORS and _whole([binary["left"], binary["right"]], schema):
        return {"BinaryExpr": {**binary, "left": _cast(binary["left"]), "right": _cast(binary["right"])}}
    if isinstance(function, dict) and json.dumps(function["function"]) in _FUNCTIONS and _whole(function["input"], schema):
        return {"Function": {**function, "input": [_cast(each) for each in function["input"]]}}
    return parts


def _cast(tree: Any) -> Any:
    return json.loads(_CAST.replace(_HOLE, json.dumps(tree)))


def _whole(operands: list[Any], schema: Mapping[str, pl.DataType]) -> bool:
    """Whether all of ``operands`` are integers."""
    rows = pl.LazyFrame(schema=dict(schema))
    try:
        kinds = rows.select(_expression(each).alias(str(at)) for at, each in enumerate(operands)).collect_schema()
    except ComputeError:
        raise
    except PolarsError:
        return False
    return all(kind.is_integer() for kind in kinds.dtypes())
