"""Arithmetic in expressions that Polars would get wrong without an error.

Integers do not wrap around. Polars computes in the type of the operands, and a result that does not fit wraps around: ``month(t) * 100``
has 8 bits, so December gives -80, and ``a - b`` of two unsigned columns gives four billion instead of -1. SQL has no such behaviour, and
nobody would spot it in the output. Therefore sums, differences, products and powers are computed in 128 bits. The result of two 64-bit
numbers fits, except for the product of the largest unsigned ones. Where a result could be larger than that, such as a product of three, it
is capped at ``MOST`` or its negative, which fits no column.

Division by a constant is correctly rounded. Polars multiplies by the reciprocal instead, unless there is a single row: 35 / 100 is
0.35000000000000003 in a batch of many rows and 0.35 on its own, and a result must not depend on where a batch is cut.

Seconds since 1970 are counted in microseconds. Polars counts nanoseconds, and 64 bits of those only cover the years 1678 to 2261.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import polars as pl
from polars.exceptions import ComputeError, PolarsError

WIDE: Final = pl.Int128()
MOST: Final = 2**126
"""Cap for results that could exceed ``WIDE``; two of these can still be added."""

_BITS: Final = 127
_OPERATORS: Final = frozenset({"Plus", "Minus", "Multiply"})
_FUNCTIONS: Final = {'"Abs"': "Abs", '{"Sql": {"Binary": "Mul"}}': "Multiply", '{"Pow": "Generic"}': "Power"}
_EPOCH: Final = {"TemporalExpr": {"TimeStamp": "Nanoseconds"}}
_SECOND: Final = 1e6
_DIVISION: Final = '{"Sql": {"Binary": "Div"}}'
_MARK: Final = "\0"
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET: Final = re.compile(r"[{}\[\]]")
MOST_LEVELS: Final = 400
"""Levels of an expression's JSON tree that Python can walk through."""
TOO_DEEP: Final = "too many nested operations; about 200 are allowed"
TOO_DEEP_CURE: Final = "write `x IN (1, 2, 3)` for many values of one column, or compute parts of it in separate columns"


def _serialized(expression: pl.Expr) -> Any:
    return json.loads(expression.meta.serialize(format="json"))


_CAST: Final = json.dumps(_serialized(pl.col(_MARK).cast(WIDE)))
_HOLE: Final = json.dumps(_serialized(pl.col(_MARK)))


def too_deep(expression: pl.Expr) -> bool:
    """Whether ``expression`` nests more operations than this module can handle (about 200). Polars takes minutes for a few thousand."""
    depth = most = 0
    for bracket in _BRACKET.findall(_TEXT.sub("", expression.meta.serialize(format="json"))):
        depth += 1 if bracket in "{[" else -1
        most = max(most, depth)
    return most > MOST_LEVELS


def angles_of_objects(expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> bool:
    """Whether ``atan2`` gets an object: Polars does not refuse that, but ends the process with a segmentation fault."""
    called = [each for tree in _inner(_serialized(expression)) for each in _angle_of(tree)]
    return any(isinstance(kind, pl.Struct) for each in called for kind in _kinds([each], schema))


def _inner(tree: Any) -> Iterator[Any]:
    """``tree`` and all that is in it."""
    yield tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _inner(each)


def _angle_of(tree: Any) -> list[Any]:
    """What ``tree`` gives the angle of, if it does; without the conversion to a number that stands around it, which converts no object."""
    called = tree.get("Function") if isinstance(tree, dict) else None
    if not isinstance(called, dict) or called.get("function") != "Atan2":
        return []
    return [
        each["Function"]["input"][0] if "Function" in each and "Sql" in str(each["Function"]["function"]) else each
        for each in called["input"]
    ]


def exact(expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """``expression`` over columns of ``schema``, with integer arithmetic in 128 bits and correctly rounded division.

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
    """The rewritten ``tree``; the same object if there is nothing to change."""
    if isinstance(tree, list):
        items = [_widened(each, schema) for each in tree]
        return tree if all(new is old for new, old in zip(items, tree, strict=True)) else items
    if not isinstance(tree, dict):
        return tree
    parts = {key: _widened(value, schema) for key, value in tree.items()}
    if all(parts[key] is value for key, value in tree.items()):
        parts = tree
    if moment := _counted_from_1970(parts):
        ticks = _expression(moment).dt.timestamp("us")
        return _serialized(ticks / (_SECOND + _zeros(ticks, pl.Float64())))
    if _division(parts):
        return _divided(parts, schema)
    name, operands = _operation(parts)
    if not name or not _whole(operands, schema):
        return parts
    wide = [_cast(each) for each in operands]
    done = _with_operands(parts, wide)
    return _held(done, wide) if _operation_bits(*_operation(tree), schema) > _BITS else done


def _operation(tree: Any) -> tuple[str, list[Any]]:
    """Name and operands of an operation whose result may not fit; an empty name if ``tree`` is not one."""
    if isinstance(tree, dict):
        binary, function = tree.get("BinaryExpr"), tree.get("Function")
        if isinstance(binary, dict) and binary["op"] in _OPERATORS:
            return binary["op"], [binary["left"], binary["right"]]
        if isinstance(function, dict):
            return _FUNCTIONS.get(json.dumps(function["function"]), ""), function["input"]
    return "", []


def _with_operands(tree: Any, operands: list[Any]) -> Any:
    if "BinaryExpr" in tree:
        return {"BinaryExpr": {**tree["BinaryExpr"], "left": operands[0], "right": operands[1]}}
    return {"Function": {**tree["Function"], "input": operands}}


def _operation_bits(name: str, operands: list[Any], schema: Mapping[str, pl.DataType]) -> int:
    """The most bits that a result may have, without its sign."""
    sizes = [_bits(each, schema) for each in operands]
    sums = {"Multiply": sum(sizes), "Power": _BITS + 1}
    return sums.get(name, max(sizes) + 1)


def _bits(tree: Any, schema: Mapping[str, pl.DataType]) -> int:
    """The most bits that an integer may have, without its sign."""
    name, operands = _operation(tree)
    if name:
        found = _operation_bits(name, operands, schema)
        return found if found <= _BITS else MOST.bit_length()
    constant = tree.get("Literal") if isinstance(tree, dict) else None
    if isinstance(constant, dict) and isinstance(constant.get("Dyn"), dict) and "Int" in constant["Dyn"]:
        return int(constant["Dyn"]["Int"]).bit_length()
    kind = str(_kinds([tree], schema)[0])
    return int(kind.lstrip("UInt")) - kind.startswith("I")


def _held(tree: Any, operands: list[Any]) -> Any:
    """The result of ``tree``, capped at ``MOST`` and its negative."""
    near = _expression(_with_operands(tree, [_serialized(_expression(each).cast(pl.Float64)) for each in operands]))
    most = [pl.lit(bound, WIDE) for bound in (MOST, -MOST)]
    held = pl.when(near.abs() < MOST).then(_expression(tree)).when(near > 0).then(most[0]).when(near < 0).then(most[1])
    return _serialized(held)


def _counted_from_1970(tree: Any) -> Any:
    """The argument of ``date_part('epoch', ...)``; None if ``tree`` is something else."""
    binary = tree.get("BinaryExpr")
    whole = binary["left"].get("BinaryExpr") if isinstance(binary, dict) and binary["op"] == "Plus" else None
    function = whole["left"].get("Function") if isinstance(whole, dict) and whole["op"] == "RustDivide" else None
    return function["input"][0] if isinstance(function, dict) and function["function"] == _EPOCH else None


def _division(tree: Any) -> list[Any]:
    """Dividend and divisor; empty if ``tree`` is something else. ``date_part`` uses another operator than columns do."""
    binary, function = tree.get("BinaryExpr"), tree.get("Function")
    if isinstance(binary, dict) and binary["op"] == "RustDivide":
        return [binary["left"], binary["right"]]
    operands: list[Any] = function["input"] if isinstance(function, dict) and json.dumps(function["function"]) == _DIVISION else []
    return operands


def _divided(tree: Any, schema: Mapping[str, pl.DataType]) -> Any:
    """The division with a constant divisor turned into a column, so that Polars divides row by row."""
    above, below = _division(tree)
    dividend, divisor = _expression(above), _expression(below)
    (kind,) = _kinds([tree], schema) or [pl.Null()]
    if not dividend.meta.root_names() or divisor.meta.root_names() or not kind.is_float():
        return tree
    done = _with_operands(tree, [above, _serialized(divisor.cast(kind) + _zeros(pl.col(dividend.meta.root_names()[0]), kind))])
    return done if _kinds([done], schema) == [kind] else tree


def _zeros(values: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """A zero per row. Adding it to a constant makes a column of it; the result of `when` would still be a constant."""
    return values.is_null().cast(kind) * 0.0


def _cast(tree: Any) -> Any:
    return json.loads(_CAST.replace(_HOLE, json.dumps(tree)))


def _kinds(trees: list[Any], schema: Mapping[str, pl.DataType]) -> list[pl.DataType]:
    """The types of ``trees``; empty if they do not fit their columns."""
    rows = pl.LazyFrame(schema=dict(schema))
    try:
        return rows.select(_expression(each).alias(str(at)) for at, each in enumerate(trees)).collect_schema().dtypes()
    except ComputeError:
        raise
    except PolarsError:
        return []


def _whole(operands: list[Any], schema: Mapping[str, pl.DataType]) -> bool:
    """Whether all of ``operands`` are integers."""
    kinds = _kinds(operands, schema)
    return bool(kinds) and all(kind.is_integer() for kind in kinds)
