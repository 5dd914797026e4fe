import polars as pl
import pytest

from stream.sink.redshift_evolve import Evolution, ExistingColumn, evolve
from stream.sink.redshift_sql import Owner, create_table
from stream.sink.redshift_types import layout_of
from tests.contract.warehouse import config

TYPES = {"n": pl.Int64(), "tags": pl.List(pl.String()), "_shard": pl.String(), "_sequence": pl.String(), "_subsequence": pl.UInt32()}
LAYOUT = layout_of(TYPES, {})
EVENTS = ("public", "events")

EXISTING = [
    ExistingColumn("n", "int8", 0),
    ExistingColumn("tags", "super", 0),
    ExistingColumn("_shard", "varchar", 128),
    ExistingColumn("_sequence", "varchar", 60),
    ExistingColumn("_subsequence", "int8", 0),
]


def others(name):
    return [each for each in EXISTING if each.name != name]


def test_a_table_that_fits_is_left_unchanged():
    assert evolve(config(), EVENTS, LAYOUT, EXISTING) == Evolution()
    assert evolve(config(), EVENTS, LAYOUT, [ExistingColumn("mine", "timestamp", 0), *reversed(EXISTING)]) == Evolution()


def test_a_missing_column_is_added_or_reported():
    added = evolve(config(), EVENTS, LAYOUT, EXISTING[1:])
    assert added == Evolution(('ALTER TABLE "public"."events" ADD COLUMN "n" bigint',))
    (problem,) = evolve(config(evolve="halt"), EVENTS, LAYOUT, EXISTING[1:]).problems
    assert 'run: ALTER TABLE "public"."events" ADD COLUMN "n" bigint' in problem


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ExistingColumn("n", "varchar", 10), "is varchar in the table and bigint"),
        (ExistingColumn("_shard", "int8", 0), "is int8 in the table and varchar(256)"),
        (ExistingColumn("_sequence", "varchar", 20), "types: {_sequence: varchar(20)}"),
    ],
)
def test_a_column_that_does_not_fit_is_never_changed(found, words):
    change = evolve(config(), EVENTS, LAYOUT, [*others(found.name), found])
    assert change.statements == ()
    assert words in change.problems[0]


def bytes_of(stream):
    return Owner("app", stream, several=True).shard_bytes


def test_the_name_of_a_shard_is_as_long_as_the_rows_have_it():
    assert Owner("app", "n" * 128).shard_bytes == len("shardId-000000000000")
    assert bytes_of("n" * 128) == len("n" * 128 + "/shardId-000000000000")


def test_a_new_table_takes_the_longest_name_of_a_shard():
    longest = f"backfill.{'n' * 128}@111122223333.ap-southeast-1.aws-iso-b.20260101T000000Z-20260102T000000Z"
    assert '"_shard" varchar(256)' in create_table(EVENTS, LAYOUT)
    assert evolve(config(), EVENTS, LAYOUT, [*others("_shard"), ExistingColumn("_shard", "varchar", 256)], bytes_of(longest)) == Evolution()


@pytest.mark.parametrize("types", [{}, {"_shard": "varchar(128)"}])
def test_an_older_table_is_widened_by_hand_only_if_the_streams_name_needs_it(types):
    layout = layout_of(TYPES, types)
    assert evolve(config(types=types), EVENTS, layout, EXISTING, bytes_of("n" * 107)) == Evolution()
    assert evolve(config(types=types), EVENTS, layout, EXISTING, bytes_of("n" * 108)) == Evolution(
        (),
        (
            (
                "column _shard has 128 bytes in the table, and `<stream>/<shard>` of this pipeline up to 129. Nothing is loaded until it "
                'is wider; run, outside of a transaction: ALTER TABLE "public"."events" ALTER COLUMN "_shard" TYPE varchar(256)'
            ),
        ),
    )


def test_a_column_of_any_length_takes_every_name():
    assert evolve(config(), EVENTS, LAYOUT, [*others("_shard"), ExistingColumn("_shard", "text", 0)], 256) == Evolution()
