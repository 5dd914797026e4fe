"""The arithmetic operators of expressions. Results are bounded, so that no expression takes long."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final


def _divided(left: float, right: float) -> int | float:
    if isinstance(left, int) and isinstance(right, int):
        size = abs(left) // abs(right)
        return size if (left < 0) == (right < 0) else -size
    return left / right


_LARGEST: Final = 10**18


def _raised(left: float, right: float) -> float:
    if left < 0 and right != int(right):
        msg = "a root of a negative number"
        raise ValueError(msg)
    return math.pow(left, right)


def _bounded(value: float) -> int | float:
    if abs(value) > _LARGEST:
        msg = "larger than any number of a definition"
        raise OverflowError(msg)
    return value


NUMBERS: Final[Mapping[str, Callable[[float, float], int | float]]] = {
    "+": lambda left, right: _bounded(left + right),
    "-": lambda left, right: _bounded(left - right),
    "*": lambda left, right: _bounded(left * right),
    "/": lambda left, right: _bounded(_divided(left, right)),
    "^": lambda left, right: _bounded(_raised(left, right)),
}
"""The function of each operator. It raises ArithmeticError or ValueError if there is no result."""
