import pytest
from pydantic import ValidationError

from stream.batch import Outcome
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.dedupe import Dedupe
from stream.transform.types import parse_schema
from tests.frames import apply, batch, rows, ticks

FRAME = rows({"k": ["a", "b", "a", None, None, "a"], "n": [1, 2, 3, 4, 5, 6]})


@pytest.mark.parametrize(("keep", "kept"), [("first", [1, 2, 4, 5]), ("last", [2, 4, 5, 6])])
def test_one_row_per_key_is_kept_in_order_and_all_rows_without_a_key(keep, kept):
    got, _ = apply(Dedupe.model_validate({"by": "k", "keep": keep}), FRAME)
    assert [row["n"] for row in got] == kept


def test_lineage_columns_can_be_keys():
    assert len(apply(Dedupe.model_validate(["_shard"]), FRAME)[0]) == 1


def test_the_outcome_is_deduplicated():
    chain = compile_chain(Json(), parse_schema({"k": "int64"}), [Dedupe.model_validate("k")], Resources(), ticks())
    got = chain.run(batch([b'{"k":1}', b'{"k":1}']), "s")
    assert got.settled.rows() == [(1, Outcome.DEDUPLICATED, "1:dedupe", "deduplicated")]


def test_deduplication_across_units_is_refused_with_an_alternative():
    with pytest.raises(ValidationError, match="deduplicate by key where the files are read"):
        Dedupe.model_validate({"by": "k", "across": "units"})


@pytest.mark.parametrize(("by", "says"), [("x", "no column 'x'"), ("f", "cannot be a key"), ("l", "cannot be a key")])
def test_columns_that_cannot_be_a_key_are_refused(by, says):
    with pytest.raises(SchemaMismatch, match=says):
        Dedupe.model_validate(by).output(rows({"f": [1.5], "l": [[1]]}).schema, Resources())
