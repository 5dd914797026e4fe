"""The arithmetic of expressions, within bounds."""

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
"""Functions of two numbers by their signs; an ArithmeticError or a ValueError where there is no result."""
