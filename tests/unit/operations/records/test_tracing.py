import asyncio
import dataclasses
import json

import msgspec
import polars as pl
import pytest

from stream.audit.criteria import Criteria
from stream.audit.outputs import DamagedFileError
from stream.audit.trace import RecordQuery
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, State, decode, encode
from stream.errors import DefinitionError, Halted
from stream.operations.records.replaying import read_unit, replay
from stream.operations.records.tracing import Tracer
from stream.pipeline.sensitive import HIDDEN, Sensitive
from tests.sealed import BEGIN, Sealed, sequence, shard_id, three_units


@pytest.fixture
def sealed():
    return asyncio.run(three_units())


def tracer(sealed):
    return Tracer(sealed.log, "events", sealed.stores.areas(sealed.root.url, "events"), sealed.places.__getitem__)


def find_text(sealed, text):
    return [fate for _, fate in asyncio.run(tracer(sealed).find(RecordQuery.parse(text)))]


@pytest.mark.parametrize("n", range(1, 121))
def test_every_record_is_found_with_its_outcome(sealed, n):
    (fate,) = find_text(sealed, str(sequence(0, n)))
    assert (fate.shard, fate.sequence) == (shard_id(0), str(sequence(0, n)))
    expected = "dead_lettered" if n % 13 == 12 else "filtered" if n % 5 == 0 else "written"
    assert fate.outcome == expected
    assert (fate.unit_after, fate.unit_last) == (
        str(sequence(0, (n - 1) // 40 * 40)) if n > 40 else "0",
        str(sequence(0, ((n - 1) // 40 + 1) * 40)),
    )
    assert len(fate.places) == (0 if expected == "filtered" else 1)
    assert fate.worker == "worker-1"


def test_a_file_and_row_number_lead_back_to_the_record(sealed):
    for _, fate in asyncio.run(tracer(sealed).find(RecordQuery(sequence(1, 31)))):
        (place,) = fate.places
        ((_, back),) = asyncio.run(tracer(sealed).find_row(place.url, place.row))
        assert back == fate
    assert asyncio.run(tracer(sealed).find_row(place.url, 10_000)) == []


def test_the_given_row_of_the_file_holds_the_record(sealed):
    (fate,) = find_text(sealed, str(sequence(0, 44)))
    body = asyncio.run(sealed.stores.targets["s3"].get(fate.places[0].url.removeprefix("memory:lake/"))).body
    assert pl.read_parquet(body).row(fate.places[0].row, named=True)["n"] == 44


def test_shard_and_subsequence_narrow_the_search(sealed):
    number = sequence(0, 44)
    assert len(find_text(sealed, f"{shard_id(0)}:{number}:0")) == 1
    assert find_text(sealed, f"{shard_id(1)}:{number}") == []
    assert find_text(sealed, f"{number}:1") == []


@pytest.mark.parametrize("number", [1, sequence(0, 44) + 1, sequence(0, 1000), 10**59])
def test_a_sequence_number_that_was_never_read_is_not_found(sealed, number):
    assert find_text(sealed, str(number)) == []


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "1" * 61, "-5", "4 5"])
def test_text_that_names_no_record_is_refused(text):
    with pytest.raises(DefinitionError, match="names no record"):
        RecordQuery.parse(text)


def test_a_record_is_found_where_it_was_written_after_the_sink_moves(sealed):
    (before,) = find_text(sealed, str(sequence(0, 44)))
    sealed.move("memory:elsewhere")
    asyncio.run(sealed.unit(0, 121, 40))
    (fate,) = find_text(sealed, str(sequence(0, 44)))
    assert fate == before
    assert fate.places[0].url.startswith("memory:lake/")
    assert find_text(sealed, str(sequence(0, 124)))[0].places[0].url.startswith("memory:elsewhere/")
    ((_, back),) = asyncio.run(tracer(sealed).find_row(fate.places[0].url, fate.places[0].row))
    assert back == fate


def test_a_file_of_nobody_is_refused(sealed):
    with pytest.raises(DefinitionError, match="none of this pipeline's targets"):
        asyncio.run(tracer(sealed).find_row("s3://elsewhere/x.parquet", 0))
    with pytest.raises(DefinitionError, match="is not named as this service names files"):
        asyncio.run(tracer(sealed).find_row("memory:lake/kind=a/x.parquet", 0))


def search(sealed, text, units=200):
    found, searched = asyncio.run(tracer(sealed).search(Criteria.parse(text.split()), units))
    return [fate for _, fate in found], searched


def test_a_value_in_a_column_leads_to_its_records(sealed):
    found, searched = search(sealed, "n=44")
    assert [(fate.shard, fate.sequence, fate.outcome) for fate in found] == [
        (shard, str(sequence(number, 44)), "written") for number, shard in ((0, shard_id(0)), (1, shard_id(1)))
    ][::-1]
    assert searched.units == 5
    assert search(sealed, "twice=88")[0] == found
    assert search(sealed, "n=45")[0] == []
    assert search(sealed, "n=44 outcome=written twice=88")[0] == found
    assert search(sealed, "n=44 outcome=filtered")[0] == []


def test_searches_by_outcome_and_reason_use_the_ledger_alone(sealed):
    found, searched = search(sealed, "outcome=filtered")
    assert len(found) == 22 + 9
    assert searched.files == 0
    (fate,) = find_text(sealed, str(sequence(0, 12)))
    assert fate in search(sealed, f"reason={fate.reason}")[0]


def test_a_search_covers_only_the_newest_units(sealed):
    assert [fate.sequence for fate in search(sealed, "n=44", units=1)[0]] == [str(sequence(1, 44))]
    assert search(sealed, "n=44", units=2)[1].units == 4


def test_a_column_that_no_file_has_finds_nothing_and_is_counted(sealed):
    found, searched = search(sealed, "order=44")
    assert (found, searched.files, searched.whole) == ([], 10, 0)


class Counting:
    """A store that counts requests and the bytes it returns."""

    def __init__(self, store):
        self.store = store
        self.listed = self.read = 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def get(self, key):
        self.read += 1
        return await self.store.get(key)

    async def list(self, prefix, after=""):
        keys = 0
        async for info in self.store.list(prefix, after):
            if keys % 1000 == 0:
                self.listed += 1
            keys += 1
            yield info


def test_tracing_in_a_log_of_a_hundred_thousand_units_reads_few_objects(sealed):
    """Counts calls rather than time, which would depend on the machine; S3 takes tens of milliseconds for each."""
    prefix = f"flights/commits/events/{shard_id(0)}/"
    before = [BEGIN - n * 2**80 for n in range(1, 60_000)]
    behind = [sequence(0, 120) + n * 2**80 for n in range(1, 40_000)]
    template = next(iter(sealed.root._objects.values()))
    for start in (*before, *behind):
        sealed.root._objects[f"{prefix}{start:060d}.json"] = template
    store = Counting(sealed.stores.state)
    areas = sealed.stores.areas(sealed.root.url, "events")
    ledger = Counting(areas["ledger"].store)
    areas["ledger"] = dataclasses.replace(areas["ledger"], store=ledger)
    log = CommitLog(store, "flights", sealed.clock, "trace")
    ((_, fate),) = asyncio.run(Tracer(log, "events", areas).find(RecordQuery(sequence(0, 44), 0, shard_id(0))))
    assert fate.sequence == str(sequence(0, 44))
    assert (store.read, ledger.read) == (3, 1)  # the manifest; whether a rewind took the unit back: a next chain, the checkpoint
    assert store.listed <= 20


def steps(sealed, n, sensitive=None):
    ((link, fate),) = asyncio.run(tracer(sealed).find(RecordQuery(sequence(0, n))))
    return replay(sealed.recipe, sealed.pipeline.stages, sensitive, asyncio.run(read_unit(sealed.source, link)), link, fate)


def test_the_record_is_shown_after_every_stage(sealed):
    way = steps(sealed, 44)
    assert [step.name for step in way] == ["source", "decode", "1:filter", "2:derive"]
    assert way[0].rows[0]["_data"] == b'{"n": 44, "kind": "a"}'
    assert "twice" not in way[2].rows[0]
    assert way[3].rows[0]["twice"] == 88


def test_sensitive_values_and_the_original_bytes_are_hidden(sealed):
    way = steps(sealed, 44, Sensitive(columns=("n",)))
    assert way[0].rows[0]["_data"] == HIDDEN
    assert [[step.rows[0].get(name) for name in ("n", "kind", "twice")] for step in way[1:]] == [
        [HIDDEN, "a", None],
        [HIDDEN, "a", None],
        [HIDDEN, "a", HIDDEN],
    ]


def test_the_steps_end_where_the_record_ended(sealed):
    assert [(step.name, step.ended) for step in steps(sealed, 45)][-1] == ("1:filter", "filtered: filtered")
    assert steps(sealed, 12)[-1].name == "decode"
    assert steps(sealed, 12)[-1].ended.startswith("dead_lettered: json")


def test_a_unit_the_stream_has_dropped_cannot_be_shown(sealed):
    sealed.source.frames[shard_id(0)] = sealed.source.frames[shard_id(0)][45:]
    with pytest.raises(Halted, match="dropped by age"):
        steps(sealed, 44)
    del sealed.source.frames[shard_id(0)]
    with pytest.raises(Halted, match="no longer has the shard"):
        steps(sealed, 44)


# --- what is no row of a ledger ----------------------------------------------------------------------------------------------


def explain(sealed, text):
    return asyncio.run(tracer(sealed).explain(RecordQuery.parse(text)))


def test_a_record_of_a_gap_is_said_to_have_expired_and_not_to_lack_a_ledger(sealed):
    asyncio.run(sealed.gap(0, 130))
    (fate,) = find_text(sealed, str(sequence(0, 125)))
    assert (fate.outcome, fate.places, fate.unit_last) == ("expired_gap", (), str(sequence(0, 130)))
    assert fate.reason == "records of this range expired in the stream before they were read"


@pytest.mark.parametrize(("kind", "outcome"), [(Kind.SKIP, "skipped"), (Kind.FOREIGN, "foreign")])
def test_ranges_that_were_not_processed_here_say_whose_decision_it_was(sealed, kind, outcome):
    asyncio.run(sealed.gap(0, 130, kind=kind))
    (fate,) = find_text(sealed, f"{shard_id(0)}:{sequence(0, 125)}:3")
    assert (fate.outcome, fate.subsequence, fate.worker) == (outcome, 3, "worker-1")


def test_a_range_does_not_count_if_a_unit_of_another_shard_has_the_record():
    async def run():
        sealed = await three_units()
        await sealed.gap(0, 200)
        await sealed.unit(3, 1, 150)
        return sealed

    sealed = asyncio.run(run())
    (fate,) = find_text(sealed, str(sequence(3, 140)))
    assert (fate.shard, fate.outcome) == (shard_id(3), "filtered")


def rewound(follow):
    async def run():
        sealed = await three_units()
        await sealed.rewind(0, 40)
        if follow:
            await sealed.unit(0, 41, 30)
        else:
            await sealed.root.delete(f"flights/commits/events/{shard_id(0)}_r1/genesis.json")
        return sealed

    return asyncio.run(run())


@pytest.mark.parametrize("follow", [True, False])
def test_what_a_rewind_took_back_is_not_shown_as_if_it_were_there(follow):
    sealed = rewound(follow)
    assert [fate.taken_back for fate in find_text(sealed, str(sequence(0, 33)))] == [""]
    first, *again = find_text(sealed, str(sequence(0, 44)))
    assert f"the shard was rewound to {sequence(0, 40)}" in first.taken_back
    assert (first.shard, [fate.taken_back for fate in again]) == (shard_id(0), [""] if follow else [])
    assert [fate.shard for fate in again] == ([f"{shard_id(0)}_r1"] if follow else [])
    found = search(sealed, "outcome=filtered")[0]
    assert {fate.sequence for fate in found if fate.taken_back} == {str(sequence(0, n)) for n in range(45, 121, 5) if n % 13 != 12}


# --- damage ------------------------------------------------------------------------------------------------------------------


def without_ledgers(sealed, damage=None):
    async def run():
        store = sealed.stores.targets["ledger"]
        for key in [info.key async for info in store.list("")]:
            await (store.delete(key) if damage is None else store.put(key, damage))

    asyncio.run(run())


@pytest.mark.parametrize(("damage", "why"), [(None, "is missing"), (b"PAR1", "is damaged: the file")])
def test_without_its_ledger_a_record_is_found_in_the_files(sealed, damage, why):
    known = {n: find_text(sealed, str(sequence(0, n)))[0] for n in (44, 51)}
    without_ledgers(sealed, damage)
    for n, outcome in ((44, "written"), (51, "dead_lettered")):
        (fate,) = find_text(sealed, f"{shard_id(0)}:{sequence(0, n)}")
        assert (fate.outcome, fate.subsequence, fate.sequence) == (outcome, 0, str(sequence(0, n)))
        assert [(place.url, place.row) for place in fate.places] == [(place.url, place.row) for place in known[n].places]
        assert f"the ledger of {shard_id(0)} after {sequence(0, 40)} {why}" in fate.reason
    with pytest.raises(DamagedFileError, match="so it may have been filtered"):
        find_text(sealed, f"{shard_id(0)}:{sequence(0, 45)}")


@pytest.mark.parametrize("damage", [None, b"PAR1"])
def test_a_search_goes_on_without_ledgers_and_says_how_many_are_missing(sealed, damage):
    before = search(sealed, "n=44")[0]
    without_ledgers(sealed, damage)
    found, searched = search(sealed, "n=44")
    assert [(fate.shard, fate.sequence, fate.places) for fate in found] == [(fate.shard, fate.sequence, fate.places) for fate in before]
    assert searched.without_ledger == 2
    assert search(sealed, "n=44 outcome=written")[0] == found
    assert search(sealed, "n=44 outcome=filtered")[0] == search(sealed, "n=44 reason=x")[0] == []
    found, searched = search(sealed, "outcome=filtered")
    assert (found, searched.without_ledger) == ([], 5)


def test_files_that_are_gone_are_counted_and_not_taken_for_searched(sealed):
    async def run():
        store = sealed.stores.targets["s3"]
        for key in [info.key async for info in store.list("") if f"{shard_id(1)}-" in info.key]:
            await store.delete(key)

    asyncio.run(run())
    found, searched = search(sealed, "n=44")
    assert [fate.shard for fate in found] == [shard_id(0)]
    assert (searched.files, searched.gone) == (6, 4)


def test_files_are_searched_where_the_sink_was(sealed):
    sealed.move("memory:elsewhere")
    asyncio.run(sealed.unit(0, 121, 40))
    found, searched = search(sealed, "n=44")
    assert [fate.shard for fate in found] == [shard_id(1), shard_id(0)]
    assert searched.gone == 0
    assert found[0].places[0].url.startswith("memory:lake/")


# --- records of several rows -------------------------------------------------------------------------------------------------

EXPLODED = """\
application: flights
source:
  kinesis: {stream: events}
  schema: {n: int64, kind: "list<string>"}
stages:
  - explode: kind
sinks:
  - s3: {url: "file:./lake", partition_by: [kind]}
state: "file:./state"
"""


def test_a_row_in_another_file_than_the_first_row_of_its_record_leads_to_that_record():
    """The ledger names only the first file of a record, so the row before it in the second one is of another record."""

    def payload(n):
        kinds = ["a", "b"] if n % 2 else ["b", "a", "a"]
        return json.dumps({"n": n, "kind": kinds}).encode()

    async def run():
        sealed = await Sealed.open(text=EXPLODED)
        await sealed.unit(0, 1, 9, payload)
        lake = sealed.stores.targets["s3"]
        return sealed, {info.key: pl.read_parquet((await lake.get(info.key)).body) async for info in lake.list("")}

    sealed, files = asyncio.run(run())
    assert len(files) == 2
    for key, rows in files.items():
        for at, name in enumerate(rows["_sequence"]):
            ((_, fate),) = asyncio.run(tracer(sealed).find_row(f"memory:lake/{key}", at))
            assert fate.sequence == name
        assert asyncio.run(tracer(sealed).find_row(f"memory:lake/{key}", rows.height)) == []
    found, _ = search(sealed, "n=3")
    assert [fate.sequence for fate in found] == [str(sequence(0, 3))]


# --- why nothing is found ----------------------------------------------------------------------------------------------------


def test_a_record_after_the_last_commit_is_said_to_be_not_committed_yet(sealed):
    number = sequence(0, 124)
    assert find_text(sealed, str(number)) == []
    assert explain(sealed, str(number)) == [
        f"It is not committed yet if it is a record of {shard_id(0)} (committed up to {sequence(0, 120)})."
    ]
    assert explain(sealed, f"{shard_id(1)}:{number}") == []  # that shard has ended before
    assert explain(sealed, f"{shard_id(7)}:{number}") == [
        f"It is not committed yet if it is a record of {shard_id(7)} (nothing is committed yet)."
    ]


def test_a_record_of_a_unit_that_is_begun_is_said_to_be_in_it(sealed):
    async def run():
        key = max([info.key async for info in sealed.root.list(f"flights/commits/events/{shard_id(0)}/0")])
        manifest = decode((await sealed.root.get(key)).body, key)
        await sealed.root.put(key, encode(msgspec.structs.replace(manifest, state=State.INTENT, sealed_by="", sealed_at="", seal="")))

    asyncio.run(run())
    number = f"{shard_id(0)}:{sequence(0, 100)}"
    assert find_text(sealed, number) == []
    (words,) = explain(sealed, number)
    assert f"{shard_id(0)}: worker-1 began the unit ({sequence(0, 80)}, {sequence(0, 120)}] at 2026" in words
    assert words.endswith("; it is not sealed yet.")


def test_a_number_that_no_record_has_is_said_to_be_in_the_range_of_a_sealed_unit(sealed):
    (words,) = explain(sealed, f"{shard_id(0)}:{sequence(0, 44) + 1}")
    assert words == f"Sealed units with this number in their range do not have it: {shard_id(0)} ({sequence(0, 40)}, {sequence(0, 80)}]."


def test_a_user_record_that_an_aggregate_does_not_have_is_named(sealed):
    assert explain(sealed, f"{sequence(0, 44)}:1") == [f"{sequence(0, 44)} has the user records 0 to 0, so 1 is none of them."]
