"""Recorded definitions that a worker cannot run."""

import asyncio

import pytest
import yaml

from stream.commit.naming import pipeline_key
from stream.errors import DefinitionError, Halted
from stream.pipeline.digest import canonical_text
from stream.pipeline.lint import check_content
from stream.pipeline.model import Pipeline
from stream.pipeline.resources import Fetched
from stream.pipeline.sensitive import Sensitive
from stream.storage.memory import MemoryStore
from stream.transform.stage import Resources
from stream.worker.recipes.definitions import Definitions
from tests.frames import AIRLINES
from tests.sealed import Sealed, StillClock

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
        refused = Pipeline.model_validate(data | {"stages": [{"derive": {"day": "CAST(name AS DATE)"}}]})
        definitions = Definitions(sealed.stores.state, tmp_path, {}, sealed.clock)
        await sealed.stores.state.put(pipeline_key(digest), canonical_text(refused).encode())
        await definitions.recorded(digest)

    with pytest.raises(Halted, match=r"cannot be run here: `CAST\(name AS DATE\)` does not fit its columns"):
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
