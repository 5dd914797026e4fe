"""The oracle finds every kind of damage to a correct result."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

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


def _double_a_row(objects: Objects) -> None:
    key = _keys(objects, "lake/")[0]
    table, out = pq.read_table(io.BytesIO(objects[key]), partitioning=None), io.BytesIO()
    pq.write_table(table.slice(0, 1), out)
    objects["lake/kind=a/double.parquet"] = out.getvalue()


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
    for what, damage in DAMAGE.items():
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
