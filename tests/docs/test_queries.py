"""The queries in the pages, run on the files of a worker, find what the pages say."""

import contextlib
import datetime as dt
import gzip
import re

import duckdb
import msgspec
import pytest

from stream.batch import SeqRange
from stream.commit import compaction as compactions
from stream.commit.compaction import Compaction, Origin, Output
from stream.commit.manifest import State, encode
from stream.commit.naming import manifest_key
from stream.contracts import Shard
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from stream.transform.types import parse_schema
from stream.worker.recipes.recipe import CutUnit, Recipe, render
from tests.docs.generate import pages
from tests.docs.test_pages import shown
from tests.frames import batch

QUERIES = [match[2] for page in pages() for match in shown(page, "sql")]
ROOTS = {"s3": "flights/", "rejects": "_stream/flights/rejects/", "ledger": "_stream/flights/ledger/v1/"}


def unit():
    chain = compile_chain(Json(), parse_schema({"carrier": "string"}), (), Resources(), lambda: 0.0)
    sink = ObjectsSink(ObjectsSinkConfig(url="s3://lake/flights/", partition_by=("carrier",)))
    records = batch([b'{"carrier": "UA"}', b'{"carrier": "AA"}', b"{"])
    span = SeqRange(0, 10**20 + 2)
    return render(
        Recipe("flights", "d", "b", chain, (sink,)), CutUnit(Shard("flights", "shardId-000000000000"), span, (records,), "rows")
    ).unit


def compacted(made):
    """The file of AA as `stream compact` leaves it, as an object of the dataset and one of the state. That of UA is not compacted."""
    (file,) = [file for file in made.files if file.key.startswith("carrier=AA/")]
    origin = Origin("shardId-000000000000", "0", str(10**20 + 2), file.key, file.rows, len(file.body), file.sha256)
    key = f"carrier=AA/flights.s3.00000001.0.{file.sha256[:16]}.parquet"
    output = Output(key, file.rows, len(file.body), file.sha256)
    places = ("flights", "flights", "s3", "carrier=AA", 1, "lake/flights/", "lake/flights-compacted/")
    record = Compaction(compactions.State.PUBLISHED, *places, (origin,), (output,), file.rows, {})
    at = "lake/_stream/flights/compactions/flights/s3/carrier=AA/00000001.json"
    return {at: compactions.encode(compactions.sealed(record)), f"lake/flights-compacted/{key}": file.body}


@pytest.fixture
def lake(tmp_path):
    made = unit()
    sealed = msgspec.structs.replace(made.manifest, state=State.SEALED)
    objects = {f"lake/{ROOTS[file.sink]}{file.key}": file.body for file in made.files}
    objects["lake/_stream/flights/" + manifest_key("flights", "shardId-000000000000", 0)] = encode(sealed)
    objects |= compacted(made)
    line = gzip.compress(b'{"order": 1, "_sequence": "7"}\n')
    objects |= {f"lake/orders/day=2026-11-26/{name}.ndjson.gz": line for name in ("delivered", "delivered-again")}
    for key, body in objects.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    with contextlib.chdir(tmp_path), duckdb.connect() as db:
        yield db


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: re.sub(r"\W+", "-", query)[:40])
def test_every_shown_query_runs(lake, query):
    lake.execute(query).fetchall()


def test_rows_that_firehose_delivered_twice_are_read_once(lake):
    assert lake.execute(query("SELECT DISTINCT", "lake/orders")).fetchall() == [(1, "7", dt.date(2026, 11, 26))]


def query(*words):
    (found,) = [query for query in QUERIES if all(word in query for word in words)]
    return found


def test_the_strict_query_finds_the_files_of_the_sink(lake):
    keys = [key for (key,) in lake.execute(query("unnest(files)")).fetchall()]
    assert sorted(key.partition("/")[0] for key in keys) == ["carrier=AA", "carrier=UA"]


def test_the_ledger_query_finds_where_a_record_went(lake):
    asked = re.sub(r"'\d{50,}'", f"'{10**20 + 1}'", query("WHERE seq = "))
    ((outcome, stage, reason, target, row, _),) = lake.execute(asked).fetchall()
    assert (outcome, stage, reason, row) == ("written", None, None, 0)
    assert target is not None


def test_the_dead_letter_query_counts_by_cause(lake):
    ((stage, reason, count, data),) = lake.execute(query("rejects")).fetchall()
    assert (stage, reason, count, data) == ("decode", "json_syntax", 1, b"{")


def test_each_row_is_read_once_from_a_sink_and_its_compacted_files(lake):
    found = query("flights-compacted", "published")
    assert sorted(lake.execute(found).fetchall()) == [("AA", 1), ("UA", 1)]
    assert "flights-compacted" in str(lake.execute(found.replace("carrier, count(*)", "carrier, filename")).fetchall())
