"""A pipeline that answers Firehose: tables that are read again, and what is said when nothing can be answered."""

import asyncio
import json
from datetime import timedelta

import pytest

from stream import events
from stream.errors import DefinitionError, Fatal, Halted
from stream.hosts.transforming import Transformer
from stream.pipeline.checks.lint import check
from tests.sealed import StillClock
from tests.transformations import asked, delivered

PIPELINE = """\
application: orders
source:
  kinesis: {streams: [s, t]}
  schema: {n: int64}
stages:
  - enrich: {table: names.csv, on: n, take: name, refresh: 10m}
sinks:
  - s3: {url: "s3://lake/orders/", name: rows, lineage: false}
state: s3://state/
"""


@pytest.fixture
def make(tmp_path):
    def made(text=PIPELINE):
        (tmp_path / "pipeline.yaml").write_text(text)
        checked = check(tmp_path / "pipeline.yaml", {})
        assert checked.pipeline is not None, checked.findings
        heard, clock = [], StillClock()
        return Transformer(checked.pipeline, tmp_path, {}, clock, [heard.append]), heard, clock

    (tmp_path / "names.csv").write_text("n,name\n1,one\n")
    return made


def names(transformer, stream="s"):
    event = asked([b'{"n": 1}'], stream)
    ((_, data, _),) = delivered(event, asyncio.run(transformer.answer(event, 60.0)))
    return json.loads(data)["name"]


def test_a_table_is_read_again_when_it_is_due_and_a_failure_keeps_the_old_one(make, tmp_path):
    transformer, heard, clock = make()
    assert names(transformer) == "one"
    (tmp_path / "names.csv").write_text("n,name\n1,uno\n")
    clock.time += timedelta(minutes=9)
    assert names(transformer) == "one"
    clock.time += timedelta(minutes=2)
    assert names(transformer) == "uno"
    (tmp_path / "names.csv").unlink()
    clock.time += timedelta(minutes=11)
    assert names(transformer) == "uno"
    assert [type(each) for each in heard if isinstance(each, events.ReferenceRefreshed | events.ReferenceRefreshFailed)] == [
        events.ReferenceRefreshed,
        events.ReferenceRefreshFailed,
    ]


def test_a_stream_that_the_pipeline_does_not_name_is_refused_and_one_of_several_is_known(make):
    transformer, _, _ = make()
    assert [names(transformer, stream) for stream in ("s", "t", "")] == ["one"] * 3
    with pytest.raises(DefinitionError, match="reads the stream u, and the pipeline reads s, t;"):
        names(transformer, "u")


def test_a_table_that_is_missing_is_named_and_the_same_environment_works_once_it_is_there(make, tmp_path):
    transformer, _, _ = make()
    (tmp_path / "names.csv").unlink()
    with pytest.raises(DefinitionError, match=r"there is no table names\.csv"):
        names(transformer)
    (tmp_path / "names.csv").write_text("n,name\n1,one\n")
    assert names(transformer) == "one"


def test_a_secret_that_cannot_be_read_in_time_is_an_error_and_nothing_is_answered(make, monkeypatch):
    where = {"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t"}
    for name, value in (where | {"AWS_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    masked = "mask: {columns: n, method: keyed_hash, key: {secrets_manager: orders/mask}}"
    text = PIPELINE.replace("n: int64", "n: string").replace("enrich: {table: names.csv, on: n, take: name, refresh: 10m}", masked)
    transformer, heard, _ = make(text)
    with pytest.raises(Fatal, match="could not be read in 1 s; nothing was answered, and Firehose sends the records again"):
        asyncio.run(transformer.answer(asked([b'{"n": "1"}']), 1.0))
    assert not [each for each in heard if isinstance(each, events.RecordsTransformed)]


def test_a_stage_that_breaks_its_contract_is_an_error(make):
    transformer, _, _ = make(
        PIPELINE.replace("enrich: {table: names.csv, on: n, take: name, refresh: 10m}", "python: tests.unit.hosts.test_transforming:twice")
    )
    with pytest.raises(Halted, match="duplicated or reordered rows"):
        asyncio.run(transformer.answer(asked([b'{"n": 1}']), 60.0))


def twice(frame):
    return frame if frame.is_empty() else frame.vstack(frame)


def test_a_sensitive_column_reaches_no_answer(make):
    open_ = PIPELINE + "sensitive: [name]\n"
    with pytest.raises(AssertionError, match="sensitive"):
        make(open_)


def test_outcomes_stages_and_sizes_are_reported_under_the_name_of_the_firehose_stream(make):
    transformer, heard, _ = make()
    event = asked([b'{"n": 1}', b"{"])
    body = asyncio.run(transformer.answer(event, 60.0))
    (reported,) = [each for each in heard if isinstance(each, events.RecordsTransformed)]
    assert (reported.stream, reported.outcomes, reported.payload_bytes) == ("orders-out", (("dead_lettered", 1), ("written", 1)), 9)
    assert reported.answer_bytes >= len(json.dumps(body))
    assert [each.stage for each in heard if isinstance(each, events.StageApplied)] == ["decode", "1:enrich"]
