"""Searches by a value, compared with what a person finds who looks at every record that was put and every file that is there."""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.audit.chain import Bounds
from stream.audit.criteria import Criteria
from stream.errors import DefinitionError
from stream.operations.records import search_extent, searching
from stream.operations.records.originals import open_originals
from stream.operations.records.searching import Search, Searched, SourceSearch, Wanted
from stream.operations.records.tracing import Tracer
from tests.sealed import NOON, Sealed, sequence, shard_id, three_units

TEXT = """\
application: flights
source:
  kinesis: {stream: events}
  schema: {order_id: string, n: int64, secret: string?}
stages:
  - filter: n % 3 <> 0
  - select: [order_id, n]
sinks:
  - s3: {url: "file:./lake"}
state: "file:./state"
"""


def tracer(sealed):
    return Tracer(sealed.log, "events", sealed.stores.areas(sealed.root.url, "events"), sealed.places.__getitem__)


async def searched(sealed, text, bounds=Bounds(), units=200, source=False):  # noqa: B008 - it is frozen
    """The fates that ``stream trace message`` finds, and what it says of the search."""
    said = Searched()
    async with AsyncExitStack() as stack:
        search = Search(sealed.pipeline, Path(), {}, sealed.clock, {"events": tracer(sealed)}, stack)
        found = await search.run(Wanted(Criteria.parse(text.split()), units, bounds, source=source), said)
    return [fate for _, fate in found], said


@pytest.fixture
def reads_the_stream(monkeypatch):
    """Lets ``--source`` read the stream of an application in memory."""

    def of(sealed):
        async def opened(*_given, **_more):
            return sealed.source, NOON - timedelta(hours=1)

        monkeypatch.setattr(searching, "open_source", opened)

    return of


LETTERS = """partition_by: {kind: "SUBSTR(order_id, 1, 1)", whole: "CONCAT(order_id, '/', order_id)"}}"""
LONG = "a long name, " * 12


@pytest.mark.parametrize("folders", ["hive", "plain"])
def test_a_column_that_is_only_a_folder_of_the_partition_is_searched_like_any_other(folders):
    """Files do not have such a column; the names of their directories have its values, percent-encoded, and shortened if long.

    Which column a plain directory is of, the recorded definition says.
    """

    async def run():
        text = TEXT.replace('"file:./lake"}', f'"file:./lake", folders: {folders}, {LETTERS}')
        sealed = await Sealed.open(text=text)
        orders = ["A-1", "B-1", "A-2", "", LONG]
        await sealed.unit(0, 1, 5, lambda n: json.dumps({"order_id": orders[n - 1], "n": 1, "secret": None}).encode())
        found = {}
        for words in ("kind=A", "kind=B", "kind=", "kind=C", "kind=A n=1", "kind=A order_id=A-2", "kind=A n=2", "whole=B-1/B-1"):
            fates, said = await searched(sealed, words)
            found[words] = [int(fate.sequence) for fate in fates]
            assert not [note for note in said.notes if "no file has" in note]
        once = Search(sealed.pipeline, Path(), {}, sealed.clock, {"events": tracer(sealed)}, AsyncExitStack())
        criteria = Criteria.parse([f"whole={LONG}/{LONG}"])
        found["long"] = [int(fate.sequence) for _, fate in await once.run(Wanted(criteria, 200, Bounds()), Searched())]
        with pytest.raises(DefinitionError, match="has a column 'day'"):
            await searched(sealed, "day=1")
        return {words: [number - sequence(0, 0) for number in numbers] for words, numbers in found.items()}

    steps = asyncio.run(run())
    one = sequence(0, 1) - sequence(0, 0)
    assert steps == {
        "kind=A": [3 * one, one],
        "kind=B": [2 * one],
        "kind=": [4 * one],
        "kind=C": [],
        "kind=A n=1": [3 * one, one],
        "kind=A order_id=A-2": [3 * one],
        "kind=A n=2": [],
        "whole=B-1/B-1": [2 * one],
        "long": [5 * one],
    }


# --- the oracle ---------------------------------------------------------------------------------------------------------------

ORDERS = ("A-1", "A-17", "B-1", "")
RECORD = st.tuples(st.sampled_from(ORDERS), st.integers(0, 5), st.sampled_from(["", "broken", "wrong type"]), st.sampled_from("xy"))
SHARDS = st.lists(st.lists(st.lists(RECORD, min_size=1, max_size=5), min_size=1, max_size=3), min_size=1, max_size=2)


def payload(order, n, damage, _key):
    text = json.dumps({"order_id": order, "n": "many" if damage == "wrong type" else n, "secret": f"s{n}"})
    return text[:-1].encode() if damage == "broken" else text.encode()


async def made(shards):
    """An application that has sealed ``shards``, each a list of units of records."""
    sealed = await Sealed.open(text=TEXT)
    everything = []
    for shard, units in enumerate(shards):
        first = 1
        for unit in units:
            here = dict(enumerate(unit, first))
            await sealed.unit(shard, first, len(unit), lambda n, here=here: payload(*here[n]))
            everything += [(shard, n, record) for n, record in here.items()]
            first += len(unit)
    return sealed, everything


def outcome(record):
    return "dead_lettered" if record[2] else "filtered" if record[1] % 3 == 0 else "written"


def holds(record, column, value):
    """Whether the record was put with the value: in its column if it can be decoded, as a word of its bytes if not."""
    if record[2]:
        return bool(value) and re.search(rf"(?<![0-9A-Za-z]){re.escape(value)}(?![0-9A-Za-z])", payload(*record).decode()) is not None
    return {"order_id": record[0], "n": str(record[1]), "secret": f"s{record[1]}"}[column] == value


def names(fates):
    return sorted((fate.shard, int(fate.sequence), fate.outcome) for fate in fates)


def expected(everything, fits):
    return sorted((shard_id(shard), sequence(shard, n), outcome(record)) for shard, n, record in everything if fits(record, n))


VALUES = st.one_of(
    st.tuples(st.just("order_id"), st.sampled_from([*ORDERS, "A", "C-3"])),
    st.tuples(st.just("n"), st.sampled_from(["0", "1", "5", "7", "many"])),
    st.tuples(st.just("secret"), st.sampled_from(["s1", "s3", "s"])),
)


KEYS = st.tuples(st.just("_partition_key"), st.sampled_from(["key-1", "key-3", "key"]))
DECIDED = st.tuples(st.just("outcome"), st.sampled_from(["written", "filtered", "dead_lettered", "lost"]))


def several(*of):
    """One to three pairs of column and value, no column twice."""
    return st.lists(st.one_of(*of), min_size=1, max_size=3, unique_by=lambda pair: pair[0])


def text_of(wanted):
    return " ".join(f"{column}={value}" for column, value in wanted)


def every(record, n, wanted):
    """Whether all of ``wanted`` holds of the record that was put as number ``n``."""
    return all(
        f"key-{n}" == value
        if column == "_partition_key"
        else outcome(record) == value
        if column == "outcome"
        else holds(record, column, value)
        for column, value in wanted
    )


@settings(max_examples=100, deadline=None, print_blob=True)
@given(SHARDS, several(VALUES, KEYS, DECIDED))
@example([[[("A-17", 1, "", "x"), ("A-17", 3, "", "x"), ("A-17", 1, "broken", "x")]]], [("order_id", "A-17")])
@example([[[("A-1", 1, "", "x"), ("A-1", 2, "", "x"), ("A-1", 1, "broken", "x")]]], [("order_id", "A-1"), ("n", "1")])
@example([[[("A-1", 1, "", "x"), ("A-1", 1, "broken", "x")]]], [("order_id", "A-1"), ("outcome", "dead_lettered")])
@example([[[("A-1", 1, "broken", "x"), ("A-1", 1, "broken", "x")]]], [("order_id", "A-1"), ("_partition_key", "key-1")])
def test_a_search_finds_every_written_record_and_dead_letter_that_has_all_values(shards, wanted):
    async def run():
        sealed, everything = await made(shards)
        found, _ = await searched(sealed, text_of(wanted))
        columns = {column for column, _ in wanted}
        sought = {"dead_lettered"}
        if not columns & {"secret", "_partition_key"}:  # a stage drops the one; the other is with dead letters only
            sought |= {"written"} if columns != {"outcome"} else {"written", "filtered"}
        assert names(found) == expected(everything, lambda record, n: every(record, n, wanted) and outcome(record) in sought)

    asyncio.run(run())


@settings(max_examples=60, deadline=None, print_blob=True)
@given(SHARDS, several(VALUES, KEYS), st.integers(0, 6))
def test_with_the_source_every_record_of_that_time_is_found_whatever_became_of_it(shards, wanted, begin):
    async def run():
        sealed, everything = await made(shards)
        since = NOON + timedelta(milliseconds=begin)
        originals = await open_originals(sealed.pipeline, Path(), {}, sealed.clock)
        criteria = Criteria.parse(text_of(wanted).split()).values
        reading = SourceSearch(sealed.source, Bounds(since), originals, criteria, sealed.clock)
        records = await reading.records()
        found = [fate for each in records for _, fate in await tracer(sealed).find_in(each.shard, each)]
        assert names(found) == expected(everything, lambda record, n: every(record, n, wanted) and n >= begin)
        assert reading.read == sum(n >= begin for _, n, _ in everything)

    asyncio.run(run())


# --- what is said -------------------------------------------------------------------------------------------------------------


def sealed_orders():
    records = [("A-17", 1, "", "x"), ("A-17", 3, "", "x"), ("B-1", 1, "broken", "x"), ("A-17", 4, "wrong type", "x")]
    return made([[records, [("B-1", 2, "", "x")]]])


def test_what_a_search_cannot_know_is_said():
    async def run():
        sealed, _ = await sealed_orders()
        _, order = await searched(sealed, "order_id=A-17")
        _, secret = await searched(sealed, "secret=s1")
        _, key = await searched(sealed, "_partition_key=key-1")
        return order, secret, key

    order, secret, key = asyncio.run(run())
    filtered = "filtered records are in no file; --source with --since finds them, as far back as the source has its records"
    by_text = "records that cannot be decoded, and match by what stands in their bytes: {}"
    assert order.notes == [filtered, by_text.format(1)]
    assert (order.extent.files, order.extent.letters) == (2, 2)
    assert secret.notes == ["no file has the column secret: a stage drops or renames it", filtered, by_text.format(1)]
    assert key.notes == ["partition keys are kept with dead letters only; --source with --since also reads the source again"]


def test_what_a_search_for_several_values_cannot_know_is_said(reads_the_stream):
    async def run():
        sealed, _ = await sealed_orders()
        reads_the_stream(sealed)
        both = await searched(sealed, "order_id=A-17 secret=s1")
        decided = await searched(sealed, "order_id=A-17 outcome=filtered", Bounds(NOON), source=True)
        ledger = await searched(sealed, "outcome=filtered stage=1:filter", Bounds(NOON), source=True)
        return both, decided, ledger

    (found, both), (filtered, _), (by_ledger, ledger) = asyncio.run(run())
    assert (found, both.notes[0]) == ([], "no file has the column secret: a stage drops or renames it")
    assert (both.extent.columns, both.extent.whole) == ({"order_id": 2}, 0)
    assert names(filtered) == names(by_ledger) == [(shard_id(0), sequence(0, 2), "filtered")]
    assert ledger.notes == ["the source was not read: the ledger alone knows what a search by outcome, stage, reason or trace asks for"]


def test_notes_are_about_what_may_have_the_outcome_that_is_asked_for():
    async def run():
        sealed, _ = await sealed_orders()
        texts = (
            "order_id=Z outcome=written",
            "order_id=Z outcome=dead_lettered",
            "order_id=Z outcome=filtered",
            "secret=s1 outcome=written",
        )
        return [(await searched(sealed, text))[1].notes for text in texts]

    written, letters, filtered, dropped = asyncio.run(run())
    assert (written, letters) == ([], [])
    assert filtered == ["filtered records are in no file; --source with --since finds them, as far back as the source has its records"]
    assert dropped[0] == "no file has the column secret: a stage drops or renames it"


def test_that_files_have_a_masked_value_is_said():
    async def run():
        masking = TEXT.replace("- select: [order_id, n]", "- mask: {columns: order_id, method: redact}")
        sealed = await Sealed.open(text=masking)
        records = {1: ("A-17", 1, "", "x"), 2: ("A-17", 1, "wrong type", "x")}
        await sealed.unit(0, 1, 2, lambda n: payload(*records[n]))
        return [await searched(sealed, text) for text in ("order_id=A-17", "n=1", "order_id=A-17 outcome=dead_lettered")]

    (found, masked), (_, other), (_, letters) = asyncio.run(run())
    says = "the column order_id is masked: files have its masked values, and only dead letters the value that arrived"
    assert names(found) == [(shard_id(0), sequence(0, 2), "dead_lettered")]
    assert [any(note.startswith(says) for note in said.notes) for said in (masked, other, letters)] == [True, False, False]


def test_columns_of_which_no_file_has_all_are_named():
    async def run():
        sealed = await Sealed.open(text=TEXT.replace("[order_id, n]", "[order_id]"))
        await sealed.unit(0, 1, 1, lambda _: payload("A-17", 1, "", "x"))
        later = await Sealed.open(text=TEXT.replace("[order_id, n]", "[n]"), state=sealed.root)
        sealed.recipe = later.recipe
        await sealed.unit(0, 2, 1, lambda _: payload("A-17", 1, "", "x"))
        return [await searched(sealed, text) for text in ("order_id=A-17", "n=1", "order_id=A-17 n=1")]

    (by_order, _), (by_n, _), (found, said) = asyncio.run(run())
    assert [[int(fate.sequence) for fate in each] for each in (by_order, by_n, found)] == [[sequence(0, 1)], [sequence(0, 2)], []]
    assert said.notes[0] == "no file has all of the columns order_id, n, and all must hold of one row"


def test_a_partition_key_leads_to_dead_letters_and_with_the_source_to_all_records(reads_the_stream):
    async def run():
        sealed, _ = await sealed_orders()
        reads_the_stream(sealed)
        wanted = [f"_partition_key=key-{n}" for n in range(1, 6)]
        letters = [names((await searched(sealed, each))[0]) for each in wanted]
        everything = [names((await searched(sealed, each, Bounds(NOON), source=True))[0]) for each in wanted]
        return letters, everything

    letters, everything = asyncio.run(run())
    assert [len(each) for each in letters] == [0, 0, 1, 1, 0]
    assert [each[0][2] for each in everything] == ["written", "filtered", "dead_lettered", "dead_lettered", "written"]


def test_what_the_source_has_beyond_the_last_seal_and_what_it_has_no_more_is_said(reads_the_stream):
    async def run():
        sealed, _ = await sealed_orders()
        reads_the_stream(sealed)
        more = (await Sealed.open(text=TEXT)).source
        await sealed.unit(1, 1, 1, lambda _: payload("Z", 1, "", "x"))
        more.frames = dict(sealed.source.frames)
        await sealed.unit(1, 2, 1, lambda _: payload("Z", 1, "", "x"))
        unsealed = sealed.source.frames[shard_id(1)].tail(1)
        key = max([info.key async for info in sealed.root.list(f"flights/commits/events/{shard_id(1)}/0")])
        await sealed.root.delete(key)
        assert unsealed.height == 1
        return await searched(sealed, "order_id=Z", Bounds(NOON - timedelta(hours=2)), source=True)

    found, said = asyncio.run(run())
    assert names(found) == [(shard_id(1), sequence(1, 1), "written")]
    assert f"in the stream, but in no sealed unit yet: {shard_id(1)}:{sequence(1, 2)}:0" in said.notes
    assert "events does not keep records so long: those that arrived before 2026-01-01T11:00:00+00:00 are gone" in said.notes
    assert any(note.startswith("events: read 7 records") for note in said.notes)


def test_a_column_that_nothing_has_is_refused_with_those_that_there_are():
    async def run():
        sealed, _ = await sealed_orders()
        await searched(sealed, "orderid=A-17")

    with pytest.raises(DefinitionError, match=r"none of 2 files has a column 'orderid', nor do records .* \(order_id, n, secret, _part"):
        asyncio.run(run())


def test_a_time_chooses_the_units_of_which_records_arrived_then():
    sealed = asyncio.run(three_units())  # units of 40 records, a millisecond apart

    def units(first, last):
        bounds = Bounds(*(None if at is None else NOON + timedelta(seconds=at) for at in (first, last)))
        found, said = asyncio.run(searched(sealed, "outcome=filtered", bounds))
        return said.extent.units, {int(fate.sequence) for fate in found if fate.shard == shard_id(0)}

    every = {sequence(0, n) for n in range(5, 121, 5) if n % 13 != 12}
    assert units(0, 1) == (5, every)
    assert units(0.081, None) == (1, {number for number in every if number > sequence(0, 80)})
    assert units(None, 0.041) == (3, {number for number in every if number <= sequence(0, 40)})
    assert units(0.2, None) == (0, set())


def test_a_time_is_found_in_a_long_log_with_few_requests(monkeypatch):
    """Arrival times of a shard may be out of order by a few seconds, so units that touch these are read as well."""
    monkeypatch.setattr(search_extent, "MARGIN", timedelta(0))
    sealed = asyncio.run(three_units())
    read = []
    inner = sealed.stores.state.get

    async def get(key):
        read.append(key)
        return await inner(key)

    monkeypatch.setattr(sealed.stores.state, "get", get)
    _, said = asyncio.run(searched(sealed, "outcome=filtered", Bounds(NOON + timedelta(milliseconds=81))))
    assert said.extent.units == 1
    assert len([key for key in read if "/commits/" in f"/{key}" and "genesis" not in key]) <= 8


def test_a_search_ends_when_it_has_found_enough_and_says_so(monkeypatch):
    from stream.operations.records import tracing

    monkeypatch.setattr(tracing, "MOST_FOUND", 10)
    monkeypatch.setattr(tracing, "SEARCHED_AT_ONCE", 1)
    sealed = asyncio.run(three_units())
    for wanted in ("outcome=written", "kind=a"):
        found, said = asyncio.run(searched(sealed, wanted))
        assert (len(found), said.extent.left) == (10, 6), wanted  # the end of a shard counts as a unit, since it is not read
        assert any("6 units were not searched to their ends; ask for a shorter time" in note for note in said.notes)
