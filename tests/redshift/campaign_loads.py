# ruff: noqa: S608 - the names of tables are our own
"""Loads without faults: on the double, through the real client."""

import io
import json
import re
from collections import Counter
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from tests.redshift.faults import Once
from tests.redshift.loader import LoaderProcess
from tests.redshift.world import DELETES, UPSERT, VERSIONED, shard_id
from tests.sealed import sequence

runner = CliRunner()


def test_every_sealed_row_is_in_the_table_once(world):
    world.seal({0: 3, 1: 2})
    assert world.load()
    world.assert_exactly_once()
    assert world.ledger() == world.heads()
    world.seal({0: 1, 2: 4})
    assert world.load()
    world.assert_exactly_once()


def test_an_upsert_keeps_the_row_with_the_last_sequence_number(make_world):
    world = make_world(options=UPSERT)
    world.seal({0: 3, 1: 2})
    assert world.load()
    world.assert_exactly_once()
    world.seal({1: 3, 0: 1})
    assert world.load()
    world.assert_exactly_once()


def test_a_deleting_row_removes_the_row_of_its_key(make_world):
    world = make_world(options=DELETES)
    for units in ({0: 3, 1: 2}, {1: 3, 0: 1}, {2: 1}):
        world.seal(units)
        assert world.load()
        world.assert_exactly_once()
    assert world.query(f'SELECT count(*) FROM "{world.table}__deleted"') == [(world.kinds - len(world.table_rows()),)]
    columns = world.query(f"SELECT column_name FROM information_schema.columns WHERE table_name = '{world.table}' AND column_name = 'gone'")
    assert columns == []


def test_a_row_older_than_its_deletion_does_not_come_back(make_world):
    world = make_world(options=DELETES, kinds=3, seed=1)
    world.next[1] = 10_000
    world.seal({1: 1}, rows=1)
    assert world.load()
    ((deleted,),) = world.query(f'SELECT kind FROM "{world.table}__deleted"')
    world.seal({0: 2})
    assert world.load()
    before = world.sealed_rows().filter(pl.col("_shard") == shard_id(0), pl.col("kind") == deleted).sort(pl.col("_sequence").str.zfill(60))
    assert before["gone"].to_list()[-1:] == [False]
    assert deleted not in {row[-1] for row in world.table_rows()}
    world.assert_exactly_once()
    world.next[2] = 10_001
    world.seal({2: 1})
    assert world.load()
    world.assert_exactly_once()


def test_the_row_with_the_greatest_version_stays_whichever_shard_is_loaded_first(make_world):
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        world = make_world(options=VERSIONED, seed=7)
        world.next = {0: 1, 1: 2_000, 2: 4_000}
        for shard in order:
            world.seal({shard: 2})
            assert world.load()
            world.assert_exactly_once()
        by_stream = world.sealed_rows().sort(pl.col("_sequence").str.zfill(60), "_subsequence").unique("kind", keep="last")
        assert set(by_stream.filter(~pl.col("gone"))["n"]) != {row[3] for row in world.table_rows()}, (
            "the order of the stream says the same"
        )


def test_a_version_that_is_added_later_is_compared_from_then_on(make_world):
    world = make_world(options=DELETES)
    world.seal({0: 2})
    assert world.load()
    world.options = VERSIONED
    world.redefine()
    world.seal({1: 2})
    assert world.load()
    found = dict(world.query(f'SELECT kind, rank FROM "{world.table}" WHERE rank IS NOT NULL'))
    newest = world.sealed_rows().filter(pl.col("rank").is_not_null()).sort("rank").unique("kind", keep="last")
    assert found == dict(newest.filter(~pl.col("gone")).select("kind", "rank").rows())
    assert world.query(f'SELECT COUNT(*) FROM "{world.table}__deleted" WHERE rank IS NOT NULL')[0][0] == newest["gone"].sum()


@pytest.mark.parametrize("later", [UPSERT, "", DELETES.replace("kind", "n")])
def test_units_merge_and_delete_as_configured_when_they_were_sealed(make_world, later):
    world = make_world(options=DELETES)
    world.seal({0: 2})
    expected = world.expected()
    world.options = later
    world.redefine()
    assert world.load()
    assert world.table_rows() == expected


def test_units_sealed_to_be_appended_are_appended_and_later_ones_are_merged(make_world):
    world = make_world()
    world.seal({0: 1})
    appended = world.expected()
    world.options = UPSERT
    world.redefine()
    assert world.load()
    assert world.table_rows() == appended
    world.seal({0: 3})
    assert {row[4] for row in world.expected()} >= {row[4] for row in appended}
    assert world.load()
    world.assert_exactly_once()


def test_existing_rows_are_replaced_by_those_of_the_same_key(make_world):
    world = make_world(options=DELETES)
    world.query(f'CREATE TABLE "{world.table}" (n bigint, kind varchar(65535))')
    there = ", ".join(f"(-1, 'k{kind}')" for kind in range(world.kinds))
    world.query(f"INSERT INTO \"{world.table}\" VALUES {there}, (-2, 'other')")
    world.seal({0: 4})
    kinds = set(world.sealed_rows()["kind"])
    assert world.load()
    ours = f'SELECT _shard, _sequence, _subsequence, n, kind FROM "{world.table}" WHERE _sequence IS NOT NULL'
    assert sorted(world.query(ours)) == world.expected()
    others = world.query(f'SELECT n, kind FROM "{world.table}" WHERE _sequence IS NULL')
    assert kinds.isdisjoint(kind for _, kind in others)
    assert (-2, "other") in others


def test_two_hundred_units_are_loaded_in_one_transaction(make_world, redshift):
    world = make_world(options="      units: 200\n")
    world.seal({0: 120, 1: 50, 2: 30}, rows=3)
    batches = len(redshift.batches)
    assert world.load()
    assert len(redshift.batches) == batches + 1
    world.assert_exactly_once()


@pytest.mark.parametrize("options", ["", DELETES], ids=["append", "upsert"])
def test_the_number_of_shards_does_not_add_statements(make_world, redshift, options):
    counts = []
    for units in ({0: 30}, dict.fromkeys(range(30), 1)):
        world = make_world(options=options)
        world.seal(units, rows=3)
        before = sum(redshift.statements.values())
        assert world.load()
        counts.append(sum(redshift.statements.values()) - before)
        world.assert_exactly_once()
    assert counts[0] == counts[1]


def test_nested_values_and_unusual_texts_arrive_unchanged(world):
    world.seal({0: 3})
    assert world.load()
    found = Counter(row[0] for row in world.query(f'SELECT tags::text FROM "{world.table}"'))
    staged = Counter(None if tags is None else json.dumps(tags, ensure_ascii=False) for tags in world.sealed_rows()["tags"].to_list())
    assert found == staged
    assert '["a", "ü\'\\";--"]' in found


def test_a_created_table_has_the_types_of_the_pipeline(world):
    world.seal({0: 1})
    assert world.load()
    rows = world.query(
        f"SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{world.table}' ORDER BY ordinal_position"
    )
    assert rows == [
        ("n", "bigint"),
        ("kind", "character varying"),
        ("tags", "jsonb"),
        ("at", "timestamp without time zone"),
        ("_shard", "character varying"),
        ("_sequence", "character varying"),
        ("_subsequence", "bigint"),
        ("_arrival", "timestamp without time zone"),
    ]


def test_a_new_column_is_added_and_old_units_load_without_it(world):
    world.seal({0: 2})
    assert world.load()
    world.seal({0: 1})
    world.stages = "  - derive: {twice: n * 2}"
    world.redefine()
    world.seal({0: 1, 1: 1})
    assert world.load()
    world.assert_exactly_once()
    filled = world.query(f'SELECT COUNT(*), COUNT(twice) FROM "{world.table}"')[0]
    assert 0 < filled[1] < filled[0]


def test_a_table_that_may_not_be_changed_halts_loading_with_the_statement_to_run(world):
    world.seal({0: 1})
    assert world.load()
    world.options, world.stages = "      evolve: halt\n", "  - derive: {twice: n * 2}"
    world.redefine()
    world.seal({0: 1})
    assert not world.load()
    refused = [event for event in world.heard if isinstance(event, events.LoadRefused)][-1]
    assert refused.kind == "setup"
    statement = re.search(r"run: (ALTER TABLE .*)", refused.detail)[1]
    world.query(statement)
    assert world.load()
    world.assert_exactly_once()


def test_columns_of_others_in_any_order_are_left_unchanged(world):
    columns = "kind varchar(65535), mine timestamp DEFAULT now(), n bigint, _shard varchar(128), _sequence varchar(60)"
    world.query(f'CREATE TABLE "{world.table}" ({columns})')
    world.seal({0: 2})
    assert world.load()
    world.assert_exactly_once()
    assert world.query(f'SELECT COUNT(*) FROM "{world.table}" WHERE mine IS NULL') == [(0,)]


def test_a_column_that_is_too_narrow_halts_loading_with_a_remedy(world):
    world.query(f'CREATE TABLE "{world.table}" (n bigint, kind varchar(2))')
    world.kinds = 10
    world.seal({0: 1})
    assert not world.load()
    refused = [event.detail for event in world.heard if isinstance(event, events.LoadRefused)]
    assert "types: {kind: varchar(2)}" in refused[-1]
    world.options = "      types: {kind: varchar(2)}\n"
    world.kinds = 100
    world.redefine()
    world.seal({1: 2})
    assert (
        sum(manifest.get("outcomes", {}).get("dead_lettered", 0) for manifest in world.manifests() if manifest["shard"] == shard_id(1)) > 5
    )
    assert world.load()
    world.assert_exactly_once()


def test_a_row_that_copy_refuses_parks_the_shard_with_file_row_and_column(world, s3, tmp_path):
    world.seal({0: 1, 1: 1})
    (key,) = [
        entry["Key"] for entry in s3.list_objects_v2(Bucket=world.bucket, Prefix="staging/")["Contents"] if shard_id(0) in entry["Key"]
    ]
    body = s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    frame = pl.read_parquet(io.BytesIO(body)).with_columns(pl.col("n").cast(pl.String))
    file = io.BytesIO()
    frame.write_parquet(file)
    s3.put_object(Bucket=world.bucket, Key=key, Body=file.getvalue().ljust(len(body), b"\0")[: len(body)])
    assert world.load()
    (parked,) = [event for event in world.heard if isinstance(event, events.LoadParked)]
    assert (parked.shard, key in parked.reason) == (shard_id(0), True)
    assert {row[0] for row in world.table_rows()} == {shard_id(1)}
    s3.put_object(Bucket=world.bucket, Key=key, Body=body)
    pipeline = Path(tmp_path, "pipeline.yaml")
    pipeline.write_text(world.text)
    listed = runner.invoke(app, ["loads", "ls", str(pipeline), "--json"])
    assert listed.exit_code == 1
    (sink,) = json.loads(listed.stdout)
    assert [(row["shard"], row["units_waiting"], bool(row["parked"])) for row in sink["shards"]] == [
        (shard_id(0), 1, True),
        (shard_id(1), 0, False),
    ]
    assert "parked" in runner.invoke(app, ["loads", "ls", str(pipeline)]).stdout
    released = runner.invoke(app, ["loads", "retry", str(pipeline)])
    assert released.stdout == f"redshift: {shard_id(0)} is loaded again\n"
    assert world.load()
    world.assert_exactly_once()
    assert runner.invoke(app, ["loads", "ls", str(pipeline)]).exit_code == 0
    assert runner.invoke(app, ["loads", "retry", str(pipeline)]).stdout == "nothing is parked\n"


def test_a_loader_killed_at_a_unit_that_was_retried_and_a_second_operator_change_nothing(world, redshift, s3, tmp_path):
    world.seal({0: 1, 1: 1})
    (key, *_) = [entry["Key"] for entry in s3.list_objects_v2(Bucket=world.bucket, Prefix="staging/")["Contents"]]
    body = s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    s3.delete_object(Bucket=world.bucket, Key=key)
    assert world.load()
    pipeline = Path(tmp_path, "pipeline.yaml")
    pipeline.write_text(world.text)
    s3.put_object(Bucket=world.bucket, Key=key, Body=body)
    assert runner.invoke(app, ["loads", "retry", str(pipeline)]).stdout == f"redshift: {shard_id(0)} is loaded again\n"
    process = None

    def kill():
        process.kill()
        return ""

    redshift.hook = fault = Once("statement:COPY", kill)
    process = LoaderProcess(world.text, Path(), world.environment(), "victim")
    try:
        assert process.wait(120.0) == -9
    finally:
        process.close()
    assert fault.happened.is_set()
    assert runner.invoke(app, ["loads", "retry", str(pipeline)]).stdout == "nothing is parked\n"
    world.load_until_done()
    world.assert_exactly_once()


def test_loaders_that_create_the_tables_at_once_do_not_disturb_each_other(world):
    world.seal({0: 1, 1: 1})
    world.load_at_once(8)
    assert [event.detail for event in world.heard if isinstance(event, events.LoadRefused) and "exist" in event.detail] == []
    world.load_until_done()
    world.assert_exactly_once()


DAMAGE = {
    "a load is repeated": "INSERT INTO {t} SELECT * FROM {t} WHERE _shard = (SELECT MIN(_shard) FROM {t})",
    "a row is there twice": "INSERT INTO {t} SELECT * FROM {t} LIMIT 1",
    "a row is gone": "DELETE FROM {t} WHERE ctid = (SELECT MIN(ctid) FROM {t})",
    "a row has another value": "UPDATE {t} SET n = -1 WHERE ctid = (SELECT MIN(ctid) FROM {t})",
    "two rows have each other's values": "UPDATE {t} SET n = (SELECT MIN(n) + MAX(n) FROM {t}) - n "
    "WHERE n IN (SELECT MIN(n) FROM {t} UNION SELECT MAX(n) FROM {t})",
    "a load is in the ledger twice": "INSERT INTO {t}__loads SELECT * FROM {t}__loads LIMIT 1",
    "a load is not in the ledger": "DELETE FROM {t}__loads WHERE ctid = (SELECT MIN(ctid) FROM {t}__loads)",
    "the ledger counts other rows": 'UPDATE {t}__loads SET "rows" = "rows" + 1 WHERE ctid = (SELECT MIN(ctid) FROM {t}__loads)',
}


def saved(world):
    """Copies of the table and its ledger."""
    for table in (world.table, f"{world.table}__loads"):
        world.query(f'CREATE TABLE "{table}_saved" AS TABLE "{table}"')


def restored(world, *suffixes):
    """The table, or its ledger (``__loads``), is as when it was saved."""
    for suffix in suffixes:
        table = f"{world.table}{suffix}"
        world.query(f'DELETE FROM "{table}"')
        world.query(f'INSERT INTO "{table}" SELECT * FROM "{table}_saved"')


def is_exactly_once(world):
    try:
        world.assert_exactly_once()
    except AssertionError:
        return False
    return True


def test_each_kind_of_damage_to_a_table_is_found_by_what_judges_these_tests(world):
    for _ in range(2):
        world.seal({0: 1, 1: 1})
        assert world.load()
    saved(world)
    for what, damage in DAMAGE.items():
        world.query(damage.format(t=world.table))
        assert not is_exactly_once(world), what
        restored(world, "", "__loads")
        world.assert_exactly_once()


def test_a_table_that_is_restored_is_loaded_from_where_its_ledger_ends(world):
    world.seal({0: 2, 1: 1})
    assert world.load()
    saved(world)
    moment = world.query(f'SELECT MAX(loaded_at) FROM "{world.table}__loads"')[0][0]
    world.seal({0: 1, 1: 1, 2: 1})
    assert world.load()
    restored(world, "", "__loads")
    assert world.load()
    world.assert_exactly_once()
    restored(world, "")
    assert world.load()
    assert len(world.table_rows()) < len(world.expected()), "the ledger says that they are loaded"
    world.query(f"DELETE FROM \"{world.table}__loads\" WHERE loaded_at > '{moment}'")
    assert world.load()
    world.assert_exactly_once()


def altered(world, *statements, kinds=12):
    """Let a loader load, alter the table under it, and let it try what was sealed since. Returns whether it could, and its last refusal."""
    world.kinds = 10
    world.seal({0: 2, 1: 2})

    def alter():
        for statement in statements:
            world.query(statement)
        world.kinds = kinds
        world.seal({0: 1, 1: 1})

    loaded = world.load(steps=2, between=alter)
    refused = [event for event in world.heard if isinstance(event, events.LoadRefused)]
    return loaded, refused[-1] if refused else None


def parked(world):
    return [event for event in world.heard if isinstance(event, events.LoadParked)]


def test_a_column_that_is_dropped_under_a_loader_is_added_again_for_later_rows(world):
    loaded, refused = altered(world, f'ALTER TABLE "{world.table}" DROP COLUMN at')
    assert not loaded
    assert (refused.kind, "column" in refused.detail, "does not exist" in refused.detail) == ("setup", True, True)
    assert world.load()
    world.assert_exactly_once()
    assert not parked(world)


def test_a_column_that_is_narrowed_under_a_loader_is_named_and_no_shard_is_parked(world):
    loaded, refused = altered(world, f'ALTER TABLE "{world.table}" ALTER COLUMN kind TYPE varchar(2)', kinds=1000)
    assert not loaded
    assert refused.kind == "setup"
    assert "column kind is varchar(2) in the table and varchar(65535) in the pipeline" in refused.detail
    assert not parked(world)
    world.query(f'ALTER TABLE "{world.table}" ALTER COLUMN kind TYPE varchar(65535)')
    assert world.load()
    world.assert_exactly_once()


def test_a_table_that_is_too_narrow_for_the_names_of_several_streams_is_widened_with_the_statement_that_is_said(world):
    loaded, _ = altered(world, f'ALTER TABLE "{world.table}" ALTER COLUMN _shard TYPE varchar(26)')
    assert loaded
    world.kinesis = "{streams: [{stream: events}]}"
    world.redefine()
    world.seal({0: 1})
    assert not world.load()
    refused = [event for event in world.heard if isinstance(event, events.LoadRefused)][-1]
    assert refused.kind == "setup"
    assert "column _shard has 26 bytes in the table, and `<stream>/<shard>` of this pipeline up to 27" in refused.detail
    assert not parked(world)
    world.query(refused.detail.rpartition("outside of a transaction: ")[2])
    assert world.load()
    world.assert_exactly_once()
    assert {row[0] for row in world.table_rows()} == {shard_id(0), shard_id(1), f"events/{shard_id(0)}"}


def test_a_narrow_table_is_wide_enough_for_a_stream_that_no_row_names(world):
    loaded, _ = altered(world, f'ALTER TABLE "{world.table}" ALTER COLUMN _shard TYPE varchar(20)')
    assert loaded
    world.assert_exactly_once()


def test_a_table_that_is_renamed_under_a_loader_is_not_made_anew_without_its_rows(world):
    loaded, refused = altered(world, f'ALTER TABLE "{world.table}" RENAME TO "{world.table}_old"')
    assert not loaded
    for _ in range(2):
        assert not world.load()
    refused = [event for event in world.heard if isinstance(event, events.LoadRefused)][-1]
    assert refused.kind == "setup"
    assert (
        f"the table public.{world.table} does not exist, although public.{world.table}__loads says that rows were loaded" in refused.detail
    )
    assert not parked(world)
    world.query(f'ALTER TABLE "{world.table}_old" RENAME TO "{world.table}"')
    assert world.load()
    world.assert_exactly_once()


def test_a_column_that_must_no_longer_be_null_parks_the_shards_with_what_to_run_and_then_they_go_on_by_themselves(world):
    filled = f'UPDATE "{world.table}" SET at = now() WHERE at IS NULL'
    loaded, _ = altered(world, filled, f'ALTER TABLE "{world.table}" ALTER COLUMN at SET NOT NULL')
    assert loaded
    assert {event.shard for event in parked(world)} == {shard_id(0), shard_id(1)}
    assert all('column "at"' in event.reason and "stream loads retry" in event.reason for event in parked(world))
    (said,) = {event.reason.partition("so replace it: ")[2].partition(". The other shards")[0] for event in parked(world)}
    for statement in said.split("; "):
        world.query(statement)
    assert world.load()
    world.assert_exactly_once()
    assert world.ledger() == world.heads()


def test_load_errors_are_reported_in_the_words_of_the_system_view(world, s3):
    """A text too long for the staged column, as COPY itself finds it: rows like that never get past the sink."""
    world.seal({0: 1})
    (key,) = [entry["Key"] for entry in s3.list_objects_v2(Bucket=world.bucket, Prefix="staging/")["Contents"]]
    body = s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    frame = pl.read_parquet(io.BytesIO(body))
    frame = frame.with_columns(pl.when(pl.int_range(pl.len()) == 2).then(pl.lit("x" * 70_000)).otherwise("kind").alias("kind"))
    file = io.BytesIO()
    frame.write_parquet(file, compression="gzip", compression_level=9)
    changed = file.getvalue()
    for manifest in (entry["Key"] for entry in s3.list_objects_v2(Bucket=world.bucket, Prefix="state/app/commits/")["Contents"]):
        text = s3.get_object(Bucket=world.bucket, Key=manifest)["Body"].read()
        s3.put_object(
            Bucket=world.bucket, Key=manifest, Body=text.replace(f'"size":{len(body)}'.encode(), f'"size":{len(changed)}'.encode())
        )
    s3.put_object(Bucket=world.bucket, Key=key, Body=changed)
    assert world.load()
    (parked,) = [event for event in world.heard if isinstance(event, events.LoadParked)]
    assert f"s3://{world.bucket}/{key} row 2, column kind: String length exceeds DDL length 65535" in parked.reason


def test_staged_files_are_removed_after_their_time(make_world, s3):
    world = make_world(options="      keep_staged: 1s\n")
    world.seal({0: 2})
    assert world.load()
    rows = world.expected()
    world.query(f"UPDATE \"{world.table}__loads\" SET loaded_at = loaded_at - interval '1 hour'")
    world.seal({0: 1})
    assert world.load()
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=world.bucket, Prefix="staging/")["Contents"]]
    assert len(keys) == 1
    assert set(rows) < set(world.table_rows())


OF_MERGED = {
    "a key is there twice": "INSERT INTO {t} SELECT * FROM {t} WHERE kind = (SELECT MIN(kind) FROM {t})",
    "a row is an older one": "UPDATE {t} SET rank = rank - 1 WHERE kind = (SELECT MIN(kind) FROM {t})",
    "a row is of a record that was filtered": "UPDATE {t} SET _sequence = '{filtered}' WHERE kind = (SELECT MIN(kind) FROM {t})",
    "a row is of a record that was not loaded": "UPDATE {t} SET _sequence = '{later}' WHERE kind = (SELECT MIN(kind) FROM {t})",
    "a deleted key is back": "INSERT INTO {t} SELECT -1, kind, NULL, NULL, rank - 1, '{shard}', _sequence, _subsequence, _arrival "
    "FROM {t}__deleted WHERE kind = (SELECT MIN(kind) FROM {t}__deleted)",
}


def proof_of(world, folder):
    """The verdicts of `stream audit verify` on the table, and what it says."""
    pipeline = Path(folder, "pipeline.yaml")
    pipeline.write_text(world.text)
    done = runner.invoke(app, ["audit", "verify", str(pipeline), "--no-source", "--json"])
    found = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "tables"]
    return {each["verdict"] for each in found}, " ".join(each["message"] for each in found)


@pytest.mark.parametrize(
    "damage", ["DELETE FROM {t} WHERE kind = (SELECT MIN(kind) FROM {t})", "DELETE FROM {t}"], ids=["a key", "all keys"]
)
def test_keys_that_were_deleted_from_a_merged_table_are_missed_by_the_proof(make_world, tmp_path, damage):
    world = make_world(options=f"{UPSERT}      types: {{kind: varchar(3)}}\n", kinds=10, seed=3)
    world.seal({0: 3, 1: 3}, rows=5)  # so few that the proof looks at every row
    assert world.load()
    assert proof_of(world, tmp_path)[0] == {"ok"}
    world.query(damage.format(t=world.table))
    verdicts, said = proof_of(world, tmp_path)
    assert (verdicts, "the table has no row of its key" in said) == ({"failed"}, True), said
    world.query(f'DROP TABLE "{world.table}"')
    verdicts, said = proof_of(world, tmp_path)
    assert (verdicts, "somebody renamed or dropped it" in said) == ({"failed"}, True), said


def test_keys_of_every_type_are_looked_up(make_world, tmp_path):
    keys = "[kind, at, cost, even, day, small]"
    stage = '  - derive: {cost: "CAST(n AS DECIMAL(12,2))", even: "n % 2 = 0", day: "CAST(at AS DATE)", small: "CAST(n AS SMALLINT)"}'
    options = f"      mode: upsert\n      keys: {keys}\n      version: n\n      types: {{at: timestamptz, small: smallint}}\n"
    world = make_world(options=options, stages=stage, seed=5)
    world.seal({0: 2, 1: 2}, rows=5)
    assert world.load()
    verdicts, said = proof_of(world, tmp_path)
    assert verdicts == {"ok"}, said
    there = world.query(f'SELECT COUNT(*) FROM "{world.table}"')[0][0]
    assert f"of {there} loaded rows from" in said
    world.query(f'DELETE FROM "{world.table}" WHERE n = (SELECT MAX(n) FROM "{world.table}")')
    assert proof_of(world, tmp_path)[0] == {"failed"}


def test_each_kind_of_damage_to_a_merged_table_is_found_by_the_proof(make_world, tmp_path):
    world = make_world(options=VERSIONED, kinds=10, seed=3)
    for _ in range(2):
        world.seal({0: 2, 1: 2}, rows=5)  # so few that the proof looks at every row
        assert world.load()
    proof = partial(proof_of, world, tmp_path)
    verdicts, said = proof()
    assert (verdicts, "no key is there twice" in said) == ({"ok"}, True), said
    saved(world)
    world.query(f'CREATE TABLE "{world.table}__deleted_saved" AS TABLE "{world.table}__deleted"')
    places = {"filtered": str(sequence(0, 7)), "later": str(sequence(0, 1_000)), "shard": shard_id(0)}
    for what, damage in OF_MERGED.items():
        world.query(damage.format(t=world.table, **places))
        if what == "a deleted key is back":
            world.query(f'DELETE FROM "{world.table}__deleted"')
        verdicts, said = proof()
        assert verdicts == {"failed"}, f"{what}: {said}"
        restored(world, "", "__deleted")
    assert proof()[0] == {"ok"}
    world.query(f'DELETE FROM "{world.table}__deleted"')
    assert proof()[0] == {"unknown"}, "whether rows of these keys are missing cannot be told any more"
