"""Recorded definitions: those that a worker cannot run, and those that it runs although it would accept them no more."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from stream.batch import Batch, SeqRange
from stream.commit.naming import pipeline_key, tables_key
from stream.contracts import Shard
from stream.errors import DefinitionError, Halted
from stream.native import KERNEL
from stream.pipeline.checks.lint import check_content
from stream.pipeline.digest import canonical_text, read_canonical
from stream.pipeline.load import MAX_BYTES
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched
from stream.pipeline.sensitive import Sensitive
from stream.storage.memory import MemoryStore
from stream.transform.stage import Resources
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import CutUnit, render
from tests.frames import AIRLINES
from tests.sealed import Sealed, StillClock, records, sequence, shard_id

MASKED = """application: masked
source:
  kinesis: {stream: events}
  schema: {name: string}
stages:
  - mask: {columns: [name], method: keyed_hash, key: {env: OLD_KEY}}
sinks:
  - s3: {url: memory:lake}
state: memory:state
"""


async def _begun():
    sealed = await Sealed.open(text=MASKED, env={"OLD_KEY": "k"})
    return sealed, sealed.recipe.digest


def test_a_secret_that_is_no_longer_set_is_named(tmp_path):
    async def run():
        sealed, digest = await _begun()
        await Definitions(sealed.stores.state, tmp_path, {"NEW_KEY": "k"}, sealed.clock).recorded(digest)

    with pytest.raises(Halted, match=r"cannot be run here: the secret env:OLD_KEY is not set.*; give this worker what is missing"):
        asyncio.run(run())


def test_a_definition_that_this_version_refuses_is_reported(tmp_path):
    async def run():
        sealed, digest = await _begun()
        data = sealed.pipeline.model_dump(mode="json", by_alias=True)
        refused = Pipeline.model_validate(data | {"stages": [{"derive": {"day": "nothing + 1"}}]})
        definitions = Definitions(sealed.stores.state, tmp_path, {}, sealed.clock)
        await sealed.stores.state.put(pipeline_key(digest), canonical_text(refused).encode())
        await definitions.recorded(digest)

    with pytest.raises(Halted, match=r"cannot be run here: `nothing \+ 1`, character 1: no column 'nothing'"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("source", "decode", "reads"),
    [
        ("s3: {url: memory:in}", "json", "ndjson"),
        ("s3: {url: memory:in, compression: gzip}", "json", "ndjson"),
        ("s3: {url: memory:in, format: parquet}", "json", "parquet"),
        ("s3: {url: memory:in, format: parquet, column: raw}", "json", "parquet, column raw"),
        ("s3: {url: memory:in, format: csv}", "csv: {header: true, delimiter: ';'}", """csv, header true, quote '"', delimiter ';'"""),
        ("kinesis: {stream: events}", "json", ""),
    ],
)
def test_a_recipe_states_the_options_its_records_depend_on(tmp_path, source, decode, reads):
    data = {
        "application": "a",
        "source": {**yaml.safe_load(f"{{{source}}}"), "decode": yaml.safe_load(decode), "schema": {"name": "string"}},
    }
    pipeline = Pipeline.model_validate(data | {"sinks": [{"s3": {"url": "memory:lake"}}], "state": "memory:state"})

    async def run():
        sealed = await Sealed.open(text=MASKED, env={"OLD_KEY": "k"})
        definitions = Definitions(sealed.stores.state, tmp_path, {}, sealed.clock)
        return (await definitions.record(pipeline, Fetched())).reads

    assert asyncio.run(run()) == reads


def test_a_sensitive_column_revealed_only_by_real_tables_is_refused_before_anything_is_recorded(tmp_path):
    looked_up = """application: leak
source:
  kinesis: {stream: events}
  schema: {carrier: string}
stages:
  - lookup: {table: s3://elsewhere/airlines.parquet, on: carrier, take: [name]}
sinks:
  - s3: {url: memory:lake}
state: memory:state
sensitive: [name]
"""
    checked = check_content(looked_up.encode(), "p.yaml", tmp_path, {})
    assert [each.code for each in checked.findings] == ["not_checked"]
    url = "s3://elsewhere/airlines.parquet"
    fetched = Fetched(Resources(tables={url: AIRLINES}), {url: "00"}, {url: b"its bytes"})
    store = MemoryStore()
    with pytest.raises(DefinitionError, match=r"the sensitive column `name`.* reaches the sink `s3` unmasked"):
        asyncio.run(Definitions(store, tmp_path, {}, StillClock()).record(checked.pipeline, fetched))
    assert store._objects == {}
    allowed = checked.pipeline.model_copy(update={"sensitive": Sensitive(columns=("name",), allowed_in=("s3",))})
    asyncio.run(Definitions(store, tmp_path, {}, StillClock()).record(allowed, fetched))
    assert store._objects


RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
"""Definitions as a version of 25 November 2026 recorded them. When a check is added that would refuse one, it must ask ``is_recorded``."""
SINCE_REFUSED = [
    "alias",
    "bool_as_decimal",
    "bucket_capital",
    "compared_with_null",
    "date_as_bool",
    "date_cast_bool",
    "derived_null_comparison",
    "dots_sink",
    "double_slash_sink",
    "double_slash_state",
    "list_as_text",
    "object_as_text",
    "one_of_digits",
    "parse_fraction",
    "parse_no_day",
    "parse_zone_name",
    "partition_alias",
    "partition_text_as_date",
    "pattern_name",
    "sql_strptime_misread",
    "sql_text_as_date",
    "star_name",
    "strptime_fraction",
    "text_as_date",
]


def _is_accepted(text, tmp_path):
    return check_content(text.encode(), "pipeline.yaml", tmp_path, {"K": "k"}).pipeline is not None


async def _opened(text, tmp_path):
    state = MemoryStore()
    await state.create(pipeline_key("d"), text.encode())
    await state.create(tables_key("d"), b"{}")
    return await Definitions(state, tmp_path, {"K": "k"}, StillClock()).recorded("d")


# Where the kernel does not read records, Polars takes such a name for a pattern, so no unit with it was ever begun there.
FINISHED = sorted(RECORDED if KERNEL is not None else RECORDED.keys() - {"pattern_name"})


@pytest.mark.filterwarnings("ignore:Detected the pattern")
@pytest.mark.parametrize("name", FINISHED)
def test_what_an_older_version_accepted_and_recorded_is_opened_and_finishes_its_unit(tmp_path, name):
    recipe = asyncio.run(_opened(RECORDED[name], tmp_path))
    values = {"a": 1, "b": 2, "s": "2026-01-01", "l": [1], "o": {"x": 1}, "f": True, "d": "1.25", "t": "2026-01-01T00:00:00Z"}
    frame = records(0, 0, 20, lambda _: json.dumps(values).encode())
    unit = CutUnit(Shard("events", shard_id(0)), SeqRange(0, sequence(0, 19)), (Batch(frame, 1),), "rows")
    assert sum(render(recipe, unit).unit.manifest.outcomes.values()) == 20


@pytest.mark.filterwarnings("ignore:Detected the pattern")
def test_each_rule_for_new_definitions_still_holds_for_those(tmp_path):
    assert [name for name in sorted(RECORDED) if not _is_accepted(RECORDED[name], tmp_path)] == SINCE_REFUSED


def test_a_definition_is_opened_even_if_its_recorded_text_is_longer_than_a_file_may_be(tmp_path):
    """Letters that are not ASCII are recorded as escapes, which take three times the bytes."""
    towns = ", ".join(f"'{'ж' * 200}{n}'" for n in range(1200))
    text = MASKED.replace("mask: {columns: [name], method: keyed_hash, key: {env: OLD_KEY}}", f'filter: "name IN ({towns})"')
    accepted = check_content(text.encode(), "pipeline.yaml", tmp_path, {}).pipeline
    recorded = canonical_text(accepted)
    assert len(text.encode()) < MAX_BYTES < len(recorded)
    assert read_canonical(recorded) == accepted
    assert asyncio.run(_opened(recorded, tmp_path)).digest == "d"


def test_what_has_no_part_in_making_rows_does_not_keep_a_definition_from_being_opened(tmp_path):
    recorded = RECORDED["compared_with_null"]
    for old, new in (("bytes: 67108864", "bytes: 999999999999"), ("coordination: local", "coordination: raft"), ("9464", "99999")):
        assert old in recorded
        recorded = recorded.replace(old, new)
    assert asyncio.run(_opened(recorded, tmp_path)).application == "recorded"
    with pytest.raises(Halted, match="there is no stage `fliter`"):
        asyncio.run(_opened(recorded.replace("filter:", "fliter:"), tmp_path))
