"""A unit is what its pages are, one after the other."""

from __future__ import annotations

import pytest

from stream.batch import SEQUENCE, Batch, SeqRange
from stream.contracts import Shard
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from stream.transform.types import parse_schema
from stream.worker.recipes.recipe import CutUnit, Recipe, render
from tests.frames import batch

RECORDS = [b'{"carrier": "UA"}', b'{"carrier": "AA"}', b"{", b'{"carrier": "DL"}', b'{"carrier": "B6"}']


def rendered(pages):
    chain = compile_chain(Json(), parse_schema({"carrier": "string"}), (), Resources(), lambda: 0.0)
    recipe = Recipe("flights", "d", "b", chain, (ObjectsSink(ObjectsSinkConfig(url="s3://lake/flights/")),))
    last = int(batch(RECORDS).frame[SEQUENCE][-1])
    return render(recipe, CutUnit(Shard("flights", "shardId-000000000000"), SeqRange(0, last), pages, "rows")).unit


@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3, 4]])
def test_a_unit_of_several_pages_is_that_of_one_page_with_their_records(cuts):
    whole = batch(RECORDS)
    pages = [Batch.of(whole.frame[begin:end]) for begin, end in zip([0, *cuts], [*cuts, whole.rows], strict=True)]
    assert rendered(pages) == rendered([whole])


def test_a_unit_without_pages_has_no_records():
    assert rendered([]).manifest.records == 0
