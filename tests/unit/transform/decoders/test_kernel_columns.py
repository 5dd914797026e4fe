"""The kernel refuses a bad plan or stays within the columns; the sanitizers of `make native-check` watch it."""

import json
import random
from types import SimpleNamespace

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import native
from stream.transform.decoders.avro import Avro
from stream.transform.decoders.avro_plan import avro_reader
from stream.transform.decoders.avro_types import for_reading
from stream.transform.decoders.kernel_columns import Unsupported, layouts_of
from stream.transform.decoders.protobuf import Protobuf
from stream.transform.decoders.protobuf_plan import protobuf_reader
from tests.fuzz.corpus import AVRO_SCHEMA, CORPUS
from tests.fuzz.decoders import mutated
from tests.unit.transform.decoders.test_protobuf import TEXT, flight

PLANNER = SimpleNamespace(avro=None, protobuf=None, avro_plan=lambda spec: spec, protobuf_plan=lambda spec: spec)
"""Keeps what the kernel is asked to compile."""


def avro_spec():
    schema = fastavro.parse_schema(for_reading(AVRO_SCHEMA))
    reader = avro_reader(Avro.model_validate({"schema": json.dumps(AVRO_SCHEMA)}).output(None), schema, {b"": schema}, PLANNER)
    assert reader is not None
    return reader.plan


def protobuf_spec():
    declared = Protobuf.model_validate({"message": "f.Flight", "descriptors": TEXT}).output(None)
    reader = protobuf_reader(declared, flight().DESCRIPTOR, PLANNER)
    assert reader is not None
    return reader.plan


SPECS = {"avro": avro_spec, "protobuf": protobuf_spec}


def changed(spec, rng):
    """``spec`` with a few of its numbers changed."""
    made = [[list(row) for row in rows] for rows in spec]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rng.choice(made))
        at = rng.randrange(len(row))
        if isinstance(row[at], int):
            row[at] = rng.choice([row[at] + 1, row[at] - 1, 0, 1, -1, rng.randrange(40), 2**31 - 1, 2**62, -(2**62)])
    return tuple(tuple(tuple(row) for row in rows) for rows in made)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=400)
@given(st.integers(0, 2**32))
def test_an_arbitrary_plan_is_refused_or_harmless(name, seed):
    if native.KERNEL is None:
        return
    rng, records = random.Random(seed), CORPUS[name][2]
    given_, buffers = native.views(pl.Series([mutated(each, records, rng) for each in records * 3] + records, dtype=pl.Binary))
    try:
        plan = getattr(native.KERNEL, f"{name}_plan")(changed(SPECS[name](), rng))
    except (TypeError, ValueError, OverflowError):
        return
    bad, wrong, _, _ = getattr(native.KERNEL, name)(plan, given_, buffers)

    assert sum(bytes(bad)) == wrong


@pytest.mark.parametrize("name", SPECS)
def test_the_original_plan_reads_valid_records(name):
    if native.KERNEL is None:
        return
    given_, buffers = native.views(pl.Series(CORPUS[name][2], dtype=pl.Binary))
    plan = getattr(native.KERNEL, f"{name}_plan")(SPECS[name]())

    assert getattr(native.KERNEL, name)(plan, given_, buffers)[1] == 0


@pytest.mark.parametrize("kind", [pl.Null(), pl.Struct([]), pl.List(pl.Time()), pl.Datetime("ns")])
def test_column_types_the_kernel_does_not_make_are_not_planned(kind):
    with pytest.raises(Unsupported):
        layouts_of(pl.Schema({"a": pl.Int64(), "b": kind}))
