"""The rows that are written, and that every reader must find. Imported by the readers' environment too, which does not have `stream`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

PLACES: list[str | None] = [
    *("plain", "01", "1", "1.0", "1e3", "true", "null", "2024-01-01", "A B", "a=b", "a/b", "a%2Fb", "50%", "größer ✓", "q\"uo'te"),
    *("back\\slash", "semi;colon&?#*", "a:b+c", "line\nbreak", "", None, "__x", ".", "..", "NaN", " ", "-0"),
]
"""Values of the column that names folders."""

FLAT = {
    "id": "int64",
    "flag": "bool?",
    "tiny": "int8?",
    "small": "int16?",
    "plain": "int32?",
    "big": "int64?",
    "utiny": "uint8?",
    "usmall": "uint16?",
    "uplain": "uint32?",
    "ubig": "uint64?",
    "single": "float32?",
    "double": "float64?",
    "price": "decimal(38,10)?",
    "cents": "decimal(9,2)?",
    "at": "timestamp?",
    "at_ms": "timestamp(ms)?",
    "day": "date?",
    "bytes": "binary?",
    "text": "string?",
    "place": "string?",
}
NESTED = {
    "tags": "list<string?>?",
    "grid": "list<list<int64?>?>?",
    "who": "object{name: string?, home: object{city: string?, since: date?}?}?",
    "cart": "list<object{sku: string, qty: int32?, price: decimal(10,2)?}>?",
}
_NOW = datetime(2026, 3, 29, 0, 30, 0, 123456, tzinfo=UTC)
_BEFORE_1970 = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_VALUES: dict[str, list[Any]] = {
    "flag": [True, False],
    "tiny": [-128, 127],
    "small": [-(2**15), 2**15 - 1],
    "plain": [-(2**31), 2**31 - 1],
    "big": [-(2**63), 2**63 - 1, 2**53 + 1],
    "utiny": [0, 255],
    "usmall": [0, 2**16 - 1],
    "uplain": [0, 2**32 - 1],
    "ubig": [0, 2**64 - 1, 2**63],
    "single": [0.5, -1.25],
    "double": [0.1, -2.5e300, 1e-300],
    "price": [Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.0000000001")],
    "cents": [Decimal("1.50"), Decimal("-9999999.99")],
    "at": [_NOW, _BEFORE_1970, datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)],
    "at_ms": [_NOW.replace(microsecond=123000), _BEFORE_1970.replace(microsecond=999000)],
    "day": [date(2026, 3, 29), date(1969, 12, 31), date(9999, 12, 31), date(2024, 2, 29)],
    "bytes": [b"\x00\xff", b"", b"text"],
    "text": ["größer ✓ 💡", "", "a,b", 'say "hi"', "line\nbreak", "tab\tand \\ backslash", "=1+1", "NULL", "\\N", " padded ", "null", "'"],
    "tags": [["a", None, ""], [], ["b"]],
    "grid": [[[1, None], [], None], [[2**53 + 1]]],
    "who": [{"name": "Ada", "home": {"city": "Köln", "since": date(2020, 1, 1)}}, {"name": None, "home": None}],
    "cart": [[{"sku": "s", "qty": None, "price": Decimal("1.10")}, {"sku": "", "qty": -1, "price": None}], []],
}


def rows() -> list[dict[str, Any]]:
    """Every extreme value of every type, and null, in other combinations from row to row."""
    made = []
    for number in range(len(PLACES) * 4):
        row: dict[str, Any] = {"id": number, "place": PLACES[number % len(PLACES)]}
        row |= {name: None if number % 7 == 3 else values[number % len(values)] for name, values in _VALUES.items()}
        made.append(row)
    return made
