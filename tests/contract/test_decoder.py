"""What every decoder must do, run for each one that is built in."""

import gzip

import polars as pl
import pytest

from stream.transform.decoders import DECODERS
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import SYSTEM_SCHEMA, parse_schema
from tests.frames import batch, raw_frame, ticks

SCHEMA = parse_schema({"a": "int64", "b": "string"})

every_decoder = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)


def schema_of(config):
    """The schema of the examples, where the decoder takes one."""
    try:
        config.output(SCHEMA)
    except SchemaMismatch:
        return None
    return SCHEMA


def example(decoder):
    config = decoder.model_validate(decoder.example.config)
    return config, schema_of(config), [as_bytes(row["_data"]) for row in decoder.example.given]


def as_bytes(data):
    return data if isinstance(data, bytes) else data.encode()


def plain(frame):
    texts = [pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(texts).drop(list(SYSTEM_SCHEMA)).to_dicts()


@every_decoder
def test_the_example_gives_the_rows_it_shows(decoder):
    config, schema, records = example(decoder)
    frame = raw_frame(records)
    applied = config.bound(schema)(frame)
    assert plain(applied.frame) == decoder.example.expect
    assert applied.frame.schema == pl.Schema({**SYSTEM_SCHEMA, **config.output(schema)})
    assert applied.rejects is None or applied.rejects.is_empty()


@every_decoder
def test_no_records_give_no_rows_with_the_declared_columns(decoder):
    config, schema, _ = example(decoder)
    applied = config.bound(schema)(raw_frame([]))
    assert applied.frame.is_empty()
    assert applied.frame.schema == pl.Schema({**SYSTEM_SCHEMA, **config.output(schema)})


@every_decoder
@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"{", b"[1]", b"\x00" * 40, b"null", b'{"a":'], ids=repr)
def test_junk_records_do_not_change_the_good_ones_around_them(decoder, junk):
    config, schema, records = example(decoder)
    chain = compile_chain(config, schema, [], Resources(), ticks())
    clean = chain.run(batch(records), "s")
    given = chain.run(batch([junk, *records, junk]), "s")
    kept = given.frame.filter(pl.col("_row").is_between(1, len(records))).drop(list(SYSTEM_SCHEMA)).drop("partition_key", strict=False)
    assert kept.equals(clean.frame.drop([*SYSTEM_SCHEMA, "partition_key"], strict=False))
    assert sorted({*given.frame["_row"], *given.settled["_row"]}) == list(range(len(records) + 2))


@every_decoder
def test_decoding_twice_gives_the_same_and_leaves_the_input_unchanged(decoder):
    config, schema, records = example(decoder)
    frame = raw_frame([*records, b"{", *records])
    before = frame.clone()
    first, second = config.bound(schema)(frame), config.bound(schema)(frame)
    assert first.frame.equals(second.frame)
    assert frame.equals(before)


@every_decoder
def test_compressed_records_give_the_same_rows(decoder):

    config, schema, records = example(decoder)
    packed = decoder.model_validate({**config.model_dump(mode="json", by_alias=True), "compression": "gzip"})
    plain_again = packed.bound(schema)(raw_frame([gzip.compress(record) for record in records]))
    assert plain(plain_again.frame) == decoder.example.expect


@every_decoder
def test_the_decoder_and_each_option_have_a_description(decoder):
    assert decoder.__doc__
    for name, field in decoder.model_fields.items():
        assert field.description, f"{decoder.name}.{name} has no description"


def test_decoders_are_listed_in_alphabetical_order():
    assert list(DECODERS) == sorted(DECODERS)
