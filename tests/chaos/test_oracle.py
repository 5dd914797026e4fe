"""The oracle finds every kind of damage to a correct result."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.oracle import Definition, Oracle
from tests.chaos.truth import Record, read_stream
from tests.chaos.world import KNOWN, LARGE

Objects = dict[str, bytes]


def _keys(objects: Objects, part: str) -> list[str]:
    return sorted(key for key in objects if part in key)


def _units(objects: Objects) -> list[str]:
    return [key for key in _keys(objects, "/commits/") if json.loads(objects[key])["kind"] == "unit"]


def _edit(objects: Objects, key: str, **changes: object) -> None:
    objects[key] = json.dumps(json.loads(objects[key]) | changes).encode()


def _read(body: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(body), partitioning=None)


def _double_a_row(objects: Objects) -> None:
    key = _keys(objects, "lake/")[0]
    objects["lake/kind=a/double.parquet"] = _written(_read(objects[key]).slice(0, 1))


def _written(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _flipped(part: str) -> Callable[[Objects], None]:
    """One bit of a byte in the middle of an object is another."""

    def damage(objects: Objects) -> None:
        key = _keys(objects, part)[0]
        body = bytearray(objects[key])
        body[len(body) // 2] ^= 1
        objects[key] = bytes(body)

    return damage


ROOTS = {"s3": "lake/", "ledger": "state/chaos/ledger/v1/", "rejects": "state/chaos/rejects/"}


def _forged(sink: str, change: Callable[[pa.Table], pa.Table | None], folder: Callable[[str], str] = str) -> Callable[[Objects], None]:
    """A file of ``sink`` is replaced, or removed (None), or in another ``folder``; its manifest, and all that follow, are made to fit."""

    def damage(objects: Objects) -> None:
        key = next(key for key in _units(objects) if any(file["sink"] == sink and file["rows"] > 2 for file in _files(objects, key)))
        files = _files(objects, key)
        file = next(file for file in files if file["sink"] == sink and file["rows"] > 2)
        table = change(_read(objects.pop(ROOTS[sink] + file["key"])))
        files.remove(file)
        if table is not None:
            body = _written(table)
            objects[ROOTS[sink] + folder(file["key"])] = body
            facts = {"key": folder(file["key"]), "size": len(body), "rows": table.num_rows, "sha256": hashlib.sha256(body).hexdigest()}
            files.append(file | facts)
        _edit(objects, key, files=files)
        _chained(objects)

    return damage


def _files(objects: Objects, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(objects[key])["files"]
    return found


def _chained(objects: Objects) -> None:
    """Make each link of the only chain name its predecessor as that is now."""
    for before, after in pairwise([_keys(objects, "genesis")[0], *_units(objects)]):
        _edit(objects, after, previous=hashlib.sha256(objects[before]).hexdigest())


def _swapped(table: pa.Table) -> pa.Table:
    return table.take([1, 0, *range(2, table.num_rows)])


def _swapped_values(table: pa.Table) -> pa.Table:
    """The first two rows with a different value have each other's."""
    values = table["id"].to_pylist()
    return _with(table, "id", [values[1], values[0], *values[2:]])


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values, table.schema.field(name).type))


def _another_row(table: pa.Table) -> pa.Table:
    """The ledger leads to the row beside the right one."""
    return _with(table, "row_0", [None if line is None else line + 1 for line in table["row_0"].to_pylist()])


def _no_destination(table: pa.Table) -> pa.Table:
    return _with(_with(table, "row_0", [None] * table.num_rows), "dest_0", [None] * table.num_rows)


def _another_outcome(table: pa.Table) -> pa.Table:
    outcomes = table["outcome"].to_pylist()
    return table.set_column(table.column_names.index("outcome"), "outcome", pa.array(["filtered", *outcomes[1:]]))


FORGED: dict[str, Callable[[Objects], None]] = {
    "a row is there twice": _forged("s3", lambda table: pa.concat_tables([table.slice(0, 1), table])),
    "a row is gone": _forged("s3", lambda table: table.slice(1)),
    "two rows are swapped": _forged("s3", _swapped),
    "two rows have each other's values": _forged("s3", _swapped_values),
    "a row has another value": _forged("s3", lambda table: _with(table, "id", [-1, *table["id"].to_pylist()[1:]])),
    "a file is in another partition": _forged("s3", lambda table: table, lambda key: key.replace("kind=", "kind=z")),
    "a unit lists a file no more": _forged("s3", lambda _: None),
    "a unit lists no ledger": _forged("ledger", lambda _: None),
    "a row of the ledger is gone": _forged("ledger", lambda table: table.slice(1)),
    "a row of the ledger is there twice": _forged("ledger", lambda table: pa.concat_tables([table.slice(0, 1), table])),
    "two rows of the ledger are swapped": _forged("ledger", _swapped),
    "the ledger has another outcome": _forged("ledger", _another_outcome),
    "the ledger leads to other rows": _forged("ledger", _another_row),
    "the ledger leads nowhere": _forged("ledger", _no_destination),
    "a dead letter is gone": _forged("rejects", lambda table: table.slice(1)),
    "a dead letter is there twice": _forged("rejects", lambda table: pa.concat_tables([table.slice(0, 1), table])),
    "two dead letters are swapped": _forged("rejects", _swapped),
    "a dead letter has no reason": _forged("rejects", lambda table: _with(table, "reason", [""] * table.num_rows)),
    "a dead letter has other bytes": _forged("rejects", lambda table: _with(table, "_data", [b"x"] * table.num_rows)),
}
"""Damage with which every digest in the log agrees: only the records say that it is wrong."""


DAMAGE: dict[str, Callable[[Objects], object]] = {
    "a file is gone": lambda objects: objects.pop(_keys(objects, "lake/")[0]),
    "a file is another": lambda objects: objects.update({_keys(objects, "lake/")[0]: b"other"}),
    "a file too many": _double_a_row,
    "a ledger segment is gone": lambda objects: objects.pop(_keys(objects, "/ledger/")[0]),
    "the dead letters are gone": lambda objects: objects.pop(_keys(objects, "/rejects/")[0]),
    "a link is gone": lambda objects: objects.pop(_units(objects)[0]),
    "a link is still an intent": lambda objects: _edit(objects, _units(objects)[-1], state="intent"),
    "a link was edited": lambda objects: _edit(objects, _units(objects)[0], created_at="2020"),
    "a link counts wrongly": lambda objects: _edit(objects, _units(objects)[-1], records=1),
    "an outcome is wrong": lambda objects: _edit(objects, _units(objects)[-1], outcomes={"written": 1}),
    "a file is not listed": lambda objects: _edit(
        objects, _units(objects)[-1], files=json.loads(objects[_units(objects)[-1]])["files"][1:]
    ),
    "the genesis is gone": lambda objects: objects.pop(_keys(objects, "genesis")[0]),
    "a checkpoint leads": lambda objects: _edit(objects, _keys(objects, "/checkpoints/")[0], position=str(10**57)),
    **{f"a bit of {part} is another": _flipped(part) for part in ("lake/", "/ledger/", "/rejects/")},
}


@pytest.fixture
def sound(make_world):
    world = make_world(1)
    world.produce(300)
    world.finish(world.pipeline())
    world.exact()
    return world


def test_the_oracle_finds_each_kind_of_damage(sound):
    truth = read_stream(sound.client, sound.stream)
    whole = sound.objects()
    _chained(whole)
    assert not Oracle(whole, truth, sound.stream, (KNOWN,)).judge().problems, "what makes a chain fit must not be damage itself"
    for what, damage in {**DAMAGE, **FORGED}.items():
        objects = sound.objects()
        damage(objects)
        assert Oracle(objects, truth, sound.stream, (KNOWN,)).judge().problems, what


def test_the_oracle_finds_rows_that_the_definition_does_not_give(sound):
    assert sound.judge(Definition(KNOWN.mark, LARGE.keeps)).problems


def test_the_oracle_finds_a_record_that_was_never_read(sound):
    truth = read_stream(sound.client, sound.stream)
    shard = next(iter(truth.values()))
    shard.records.append(Record(shard.records[-1].sequence + 1, 0, b"{}", "k"))
    assert Oracle(sound.objects(), truth, sound.stream, (KNOWN,)).judge().problems
