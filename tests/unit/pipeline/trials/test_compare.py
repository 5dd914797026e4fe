from __future__ import annotations

import itertools

import pytest

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.plan import Change
from stream.pipeline.trials.compare import Altered, Column, Moved, Rerouted, Shown, compare
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from tests.frames import batch
from tests.unit.pipeline.definitions import least

RECORDS = [b'{"carrier": "UA", "delay": 20}', b"{", b'{"carrier": "AA", "delay": 1}', b'{"carrier": "DL", "delay": null}']


def chain(*stages, **source):
    pipeline = Pipeline.model_validate(least(stages=list(stages), source={**least()["source"], **source}))
    return compile_chain(pipeline.source.decode, pipeline.source.record_schema(), pipeline.stages, Resources(), lambda: 0.0)


def compared(old, new, records=RECORDS, key=()):
    ticks = itertools.count()
    return compare(old, new, batch(records), lambda: float(next(ticks)), Shown(key))


def test_equivalent_pipelines_are_the_same():
    found = compared(chain({"derive": {"x": "delay + 1"}}), chain({"derive": {"x": "1 + delay"}}))
    assert found.same
    assert (found.rows, found.records, found.seconds) == (3, 4, (1.0, 1.0))


def test_different_values_are_listed_by_column_and_key():
    found = compared(chain({"derive": {"x": "delay + 1"}}), chain({"derive": {"x": "coalesce(delay, 0) + 1"}}), key=["carrier"])
    assert found.columns == (Column("x", 1, (Altered(4, ("DL",), None, 1),)),)
    assert not found.same


def test_a_record_with_another_outcome_is_moved_and_its_row_has_no_counterpart():
    found = compared(chain(), chain({"filter": "delay > 5"}))
    assert found.moved == (Moved("written", "filtered", 2, (3, 4)),)
    assert (found.only_old, found.only_new, found.rows) == (2, 0, 1)


def test_another_reason_is_a_difference_and_another_stage_number_is_not():
    records = [b'{"carrier": "x", "delay": 1}']
    cast, other = {"cast": {"carrier": "int64"}}, {"filter": "delay > 0"}
    assert compared(chain(cast), chain(other, cast), records).same
    checked = {"validate": {"columns": {"carrier": {"matches": "^[0-9]+$"}}}}
    (moved,) = compared(chain(cast), chain(checked, cast), records).moved
    assert (moved.before, moved.after) == (
        "dead_lettered by cast: cast_failed:carrier",
        "dead_lettered by validate: invalid:carrier:matches",
    )


def test_added_removed_and_retyped_columns_are_listed():
    found = compared(chain({"derive": {"a": "1", "b": "delay"}}), chain({"derive": {"b": "CAST(delay AS DOUBLE)", "c": "1"}}))
    assert {(change.kind, change.column) for change in found.schema} == {("removed", "a"), ("added", "c"), ("retyped", "b")}
    assert Change("retyped", "b", "int64", "float64") in found.schema
    assert found.columns == ()


def test_rows_of_one_record_are_compared_in_order():
    records = [b'{"carrier": "UA", "delay": 20}\n{"carrier": "AA", "delay": 1}']
    old = chain({"derive": {"x": "delay"}}, decode="json_lines")
    new = chain({"derive": {"x": "delay * 2"}}, decode="json_lines")
    (column,) = compared(old, new, records).columns
    assert [(each.record, each.before, each.after) for each in column.examples] == [(1, 20, 40), (1, 1, 2)]


def test_an_unknown_key_column_is_refused():
    with pytest.raises(DefinitionError, match="key column 'none' is in neither"):
        compared(chain(), chain(), key=["none"])


def routed(*sinks):
    named = [{"s3": {"name": name, "url": f"s3://lake/{name}/", **({"where": where} if where else {})}} for name, where in sinks]
    pipeline = Pipeline.model_validate(least(sinks=named))
    return pipeline.compiled(Resources(), lambda: 0.0), [name for name, _ in sinks]


def rerouted(old, new):
    (first, names), (second, others) = old, new
    found = compare(first, second, batch(RECORDS), lambda: 0.0, Shown(), (names, others))
    assert found.same == (not found.rerouted and not found.moved)
    return found.rerouted


def test_rows_that_other_sinks_take_are_a_difference():
    before = routed(("late", "delay > 5"), ("rest", "else"), ("all", None))
    assert rerouted(before, before) == ()
    after = routed(("late", "delay > 0"), ("rest", "else"), ("all", None))
    assert rerouted(before, after) == (Rerouted("rest, all", "late, all", 1, (3,)),)
    assert rerouted(routed(("all", None)), before) == (Rerouted("all", "rest, all", 2, (3, 4)), Rerouted("all", "late, all", 1, (1,)))
    assert rerouted(routed(("all", None)), routed(("all", None), ("more", None))) == ()
