"""Files of every format are searched, and checked row by row, as the definition says with which their unit was made."""

import asyncio

import polars as pl
import pytest

from stream.audit.criteria import Criteria
from stream.audit.ledger import read_segment
from stream.audit.objects import check_rows
from stream.audit.outputs import DEFAULT, Separation, rows_of
from stream.audit.report import Check, Verdict
from stream.audit.verify import Scope, Verifier
from stream.commit.naming import pipeline_key
from stream.operations.records.tracing import Tracer
from stream.sink.objects import ObjectsSinkConfig
from stream.worker.opening.separations import Separations
from tests.sealed import PIPELINE, StillClock, sequence, shard_id, three_units

TABS = 'format: csv, csv: {delimiter: "\\t", header: false, null: "-"}'
ESCAPED = "format: csv, csv: {quote: null, escape: '\\', delimiter: '|'}, compression: none"
OPTIONS = ["format: ndjson", "format: csv", TABS, ESCAPED, "format: avro", "format: arrow"]


def text(options):
    return PIPELINE.replace("partition_by", f"{options}, partition_by")


def verify(sealed):
    return asyncio.run(Verifier(sealed.evidence(source=False), Scope(source=False), StillClock()).run())


def search(sealed, wanted):
    tracer = Tracer(sealed.log, "events", sealed.stores.areas(sealed.root.url, "events"))
    found, searched = asyncio.run(tracer.search(Criteria.parse(wanted.split()), 200))
    return [fate for _, fate in found], searched


@pytest.mark.parametrize("options", OPTIONS)
def test_rows_are_found_by_value_and_the_log_is_sound(options):
    sealed = asyncio.run(three_units(text=text(options)))
    report = verify(sealed)
    assert report.findings == ()
    assert report.checked[Check.OBJECTS] > 10
    column = "column_1" if options == TABS else "n"
    found, searched = search(sealed, f"{column}=44")
    assert [(fate.shard, fate.sequence) for fate in found] == [(shard_id(1), str(sequence(1, 44))), (shard_id(0), str(sequence(0, 44)))]
    assert searched.files == searched.whole == 10


CHANGES = {
    "moved": (lambda frame: pl.concat([frame[1:2], frame[:1], frame[2:]]), "2 rows belong to other records than the ledger says"),
    "deleted": (lambda frame: frame[1:], "rows, but the ledger says"),
    "doubled": (lambda frame: pl.concat([frame, frame[:1]]), "rows, but the ledger says"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", OPTIONS)
def test_rows_that_the_ledger_does_not_have_there_are_found(options, change):
    """As if somebody had corrected every checksum: only the rows themselves are compared."""

    async def run():
        sealed = await three_units(text=text(options))
        evidence = sealed.evidence()
        link = (await evidence.log(shard_id(0))).links[1]
        file = next(each for each in link.files if each.sink == "s3")
        ledger, _ = await evidence.read_file(link, link.ledger)
        body, url = await evidence.read_file(link, file)
        how = await evidence.separation(link, file)
        rows = rows_of(file.key, body, how).collect()
        encoder = next(each for each in sealed.pipeline.sinks if isinstance(each, ObjectsSinkConfig)).encoder
        changed = encoder.encode(CHANGES[change][0](rows))
        segment = read_segment(ledger)
        return [check_rows(link, segment, file, url, each, how) for each in (encoder.encode(rows), changed, body[:50])]

    sound, found, cut = asyncio.run(run())
    assert sound == []
    assert CHANGES[change][1] in found[0].message
    assert (cut[0].verdict, cut[0].shard) == (Verdict.FAILED, shard_id(0))


def test_a_file_is_read_as_the_definition_of_its_unit_says_and_not_as_todays_file():
    sealed = asyncio.run(three_units(text=text(TABS)))
    sealed.pipeline = asyncio.run(three_units(text=text("format: csv"))).pipeline
    assert verify(sealed).findings == ()
    assert len(search(sealed, "column_1=44")[0]) == 2


def test_without_the_definition_rows_of_separated_values_are_not_judged():
    async def run():
        sealed = await three_units(text=text(TABS))
        link = (await sealed.evidence().log(shard_id(0))).links[1]
        known = Separations(sealed.stores.state)
        assert await known.of(link, "s3", "a/b.csv.gz") == Separation("\t", '"', None, "-", header=False, lineage=True)
        assert await known.of(link, "s3", "a=.csv/orders.csv.shardId-0.parquet") == DEFAULT
        assert await known.of(link, "other", "a/b.csv") is None
        key = pipeline_key(link.pipeline)
        await sealed.stores.state.delete(key)
        assert await Separations(sealed.stores.state).of(link, "s3", "a/b.csv") is None
        await sealed.stores.state.put(key, b"- nothing")
        assert await Separations(sealed.stores.state).of(link, "s3", "a/b.csv") is None
        return sealed

    sealed = asyncio.run(run())
    # The rows are not judged; that the definition is gone is found.
    assert {(finding.check, "cannot be read" in finding.message) for finding in verify(sealed).findings} == {(Check.SEAL, True)}
