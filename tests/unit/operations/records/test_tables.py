"""In which table a unit's rows are, by what its loader noted, whatever the sink's name stands for since."""

import asyncio
from pathlib import Path

import pytest

from stream.commit.log import CommitLog
from stream.commit.manifest import encode
from stream.operations.records.tables import LoadedTables
from stream.worker.opening.links import link_of
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loadlog import LoadState
from tests.sealed import shard_id
from tests.unit.worker.tables.test_loading import ICEBERG, REDSHIFT, Rig


@pytest.mark.parametrize(
    ("after", "units", "said"),
    [
        (REDSHIFT, 1, "events"),
        (REDSHIFT, 0, ""),
        ((REDSHIFT[0], "others"), 1, "events or others"),
        (ICEBERG, 1, ""),
        (("      name: flows", "events"), 1, ""),
    ],
    ids=["loaded", "not loaded", "another table of the kind", "a table of another kind", "no sink of the name"],
)
def test_what_is_said_is_certain(after, units, said):
    async def run():
        rig = await Rig.open()
        await rig.redefine(REDSHIFT[0])
        manifest = await rig.sealed.unit(0, 1, 10)
        state = rig.sealed.stores.state
        await LoadState(state, "flights", "events").note_removed(shard_id(0), int(manifest.last) - (1 - units))
        await rig.redefine(after[0], table=after[1])
        log: CommitLog = rig.sealed.log
        definitions = Definitions(log.store, Path(), {}, rig.sealed.clock)
        tables = LoadedTables(rig.sealed.pipeline, state, "events", definitions)
        link = link_of("key", encode(manifest), 0)
        return await tables.of(link, "flights"), await tables.of(link, "ledger")

    assert asyncio.run(run()) == (said, "")
