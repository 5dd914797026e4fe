"""A chain of stages compared with the same written row by row in Python, without columns."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.batch import Outcome
from stream.contracts import Transformed
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stages.cast import Cast
from stream.transform.stages.derive import Derive
from stream.transform.stages.explode import Explode
from stream.transform.stages.filter import Filter
from stream.transform.stages.flatten import Flatten
from stream.transform.stages.rename import Rename
from stream.transform.stages.validate import Validate
from stream.transform.types import parse_schema
from tests.frames import RESOURCES, batch, ticks
from tests.kernel import no_kernel

SCHEMA = parse_schema(
    {
        "n": "int32?",
        "size": "uint8?",
        "code": "string?",
        "items": "list<int16?>?",
        "who": "object{age: int8?, name: string?}?",
        "at": "timestamp?",
        "sum": "decimal(6,2)?",
    }
)
STAGES = [
    Filter.model_validate("size - 5 < 100 OR size IS NULL"),
    Derive.model_validate({"twice": "n * 2", "less": "size - 7", "month": "month(at) * 100"}),
    Cast.model_validate({"code": "int8"}),
    Explode.model_validate({"column": "items", "into": "item"}),
    Flatten.model_validate("who"),
    Validate.model_validate({"columns": {"item": {"max": 2}}}),
    Rename.model_validate({"item": "kept"}),
]
COLUMNS = ("twice", "less", "month", "code", "kept", "who_age", "who_name", "sum")

GOOD: dict[str, list[Any]] = {
    "n": [0, -1, 2**31 - 1, -(2**31), 77],
    "size": [0, 3, 7, 104, 105, 255],
    "code": ["", "12", "-128", "300", "a", "é", " 1"],
    "items": [[], [1], [None], [1, None, 2], [3, 1]],
    "who": [{}, {"age": -128}, {"age": 5, "name": None}, {"name": "z"}],
    "at": ["2024-12-31T23:59:59Z", "1969-01-01T00:00:00.5+01:00"],
    "sum": [1.25, "9999.99", -0.0],
}
BAD: dict[str, list[Any]] = {
    "n": [2**31, 1.5, "1"],
    "size": [256, -1],
    "code": [5],
    "items": [[70000], 1],
    "who": [{"age": 200}, []],
    "at": ["2024-02-30", "soon"],
    "sum": ["10000", 1.255],
}
VALUES = {name: st.one_of(st.none(), st.sampled_from(GOOD[name]), st.sampled_from(GOOD[name] + BAD[name])) for name in GOOD}


def fate(record: dict[str, Any]) -> tuple[Outcome, str, list[tuple[Any, ...]]]:
    """The outcome of a record, how its reason begins, and its rows."""
    wrong = [f"wrong_type:{name}" for name, value in record.items() if any(value is bad for bad in BAD[name])]
    if wrong:
        return Outcome.DEAD_LETTERED, wrong[0] if len(wrong) == 1 else "wrong_type:", []
    size, code, items, number = (record.get(name) for name in ("size", "code", "items", "n"))
    if size is not None and size >= 105:
        return Outcome.FILTERED, "", []
    if code is not None and code not in {"12", "-128"}:
        return Outcome.DEAD_LETTERED, "cast_failed:code", []
    if not items:
        return Outcome.FILTERED, "", []
    if 3 in items:
        return Outcome.DEAD_LETTERED, "invalid:item:max", []
    who, total = record.get("who") or {}, record.get("sum")
    before = (
        None if number is None else number * 2,
        None if size is None else size - 7,
        None if record.get("at") is None else 1200,
        None if code is None else int(code),
    )
    after = (who.get("age"), who.get("name"), None if total is None else float(total))
    return Outcome.WRITTEN, "", [(*before, item, *after) for item in items]


def ran(records: list[dict[str, Any]]) -> Transformed:
    return compile_chain(Json(), SCHEMA, STAGES, RESOURCES, ticks()).run(batch([json.dumps(each).encode() for each in records]), "s")


@given(st.lists(st.fixed_dictionaries({}, optional=VALUES), max_size=80))
@settings(max_examples=60, deadline=None)
def test_the_chain_gives_what_row_by_row_python_gives(records: list[dict[str, Any]]) -> None:
    done = ran(records)
    with no_kernel():
        ordinary = ran(records)
    assert done.frame.equals(ordinary.frame)
    assert done.settled.equals(ordinary.settled)
    rows: dict[int, list[tuple[Any, ...]]] = {}
    for row in done.frame.to_dicts():
        values = [row[name] for name in COLUMNS[:-1]]
        rows.setdefault(row["_row"], []).append((*values, None if row["sum"] is None else float(row["sum"])))
    ended = {row["_row"]: row for row in done.settled.to_dicts()}
    for number, record in enumerate(records):
        outcome, reason, expected = fate(record)
        assert rows.get(number, []) == expected
        assert (number in ended) == (outcome is not Outcome.WRITTEN)
        if number in ended:
            assert ended[number]["outcome"] == outcome
            assert ended[number]["reason"].startswith(reason)
