"""Streams given by their ARNs in a pipeline file: what may be written, what it means, and who must allow what."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.pipeline.access.actions import READ_STREAM, REGISTER, SUBSCRIBE, Account, needed
from stream.pipeline.access.role_names import Role
from stream.pipeline.access.roles import accesses
from stream.pipeline.access.sharing import resource_policies
from stream.pipeline.model import KinesisSource, Pipeline
from tests.unit.pipeline.definitions import least

HERE = Account("111122223333", "eu-west-1")
SHARED = "arn:aws:kinesis:eu-west-1:444455556666:stream/flights"
ID = "flights@444455556666.eu-west-1"


def pipeline(**kinesis):
    return Pipeline.model_validate(least(source={**least()["source"], "kinesis": kinesis}))


def refused(**kinesis):
    with pytest.raises(ValidationError) as caught:
        KinesisSource.model_validate(kinesis)
    (error,) = caught.value.errors()
    return error["loc"], f"{error['ctx']['message']} -> {error['ctx']['hint']}"


def test_a_stream_is_called_by_its_id_and_written_as_its_arn():
    made = pipeline(stream=SHARED)
    assert made.source.kinesis.names == (ID,)
    assert made.source.kinesis.region == "eu-west-1"
    written = made.model_dump(mode="json", by_alias=True)
    assert written["source"]["kinesis"]["stream"] == SHARED
    assert Pipeline.model_validate(written) == made


def test_one_of_several_streams_keeps_its_start():
    entry = {"stream": SHARED, "start": "latest"}
    made = KinesisSource.model_validate({"streams": ["flights", entry], "region": "eu-west-1"})
    assert [(each.stream, str(each.start.kind)) for each in made.each()] == [("flights", "trim_horizon"), (ID, "latest")]
    assert made.model_dump(mode="json")["streams"][1]["stream"] == SHARED


def test_nothing_changes_for_a_stream_that_is_given_by_its_name():
    made = pipeline(stream="flights")
    assert made.source.kinesis.names == ("flights",)
    assert made.source.kinesis.region is None
    assert made.model_dump(mode="json", by_alias=True)["source"]["kinesis"]["stream"] == "flights"


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (f"{SHARED}/consumer/app:1545084650", f"is the ARN of a consumer, not of its stream -> write {SHARED}"),
        (SHARED.replace("kinesis", "firehose"), "is an ARN of firehose, not of a Kinesis stream -> write one such as arn:aws:kinesis:"),
        (SHARED.replace("stream/", "table/"), "is the ARN of a table, not of a Kinesis stream"),
        (SHARED.replace("4444", ""), "its account of 12 digits"),
        ("arn:", "is an ARN of no service"),
        (ID, f"is what the commit log calls a stream, not its name -> write its ARN: {SHARED}"),
        ("a stream", "is not a valid name for a Kinesis stream"),
    ],
)
def test_what_is_neither_a_name_nor_the_arn_of_a_stream_is_refused(stream, said):
    where, message = refused(stream=stream)
    assert where == ("stream",)
    assert said in message


def test_all_streams_are_in_one_region_which_is_said_if_a_name_is_among_them():
    elsewhere = SHARED.replace("eu-west-1", "us-east-1")
    where, said = refused(streams=[SHARED, elsewhere])
    assert (where, "us-east-1, and that of" in said, "a pipeline each" in said) == (("streams", 1), True, True)
    where, said = refused(stream=SHARED, region="us-east-1")
    assert (where, "is in eu-west-1, and `region` is us-east-1" in said) == (("stream",), True)
    where, said = refused(streams=[SHARED, "flights"])
    assert (where, "write `region: eu-west-1` if both are there" in said) == (("streams", 1), True)
    where, said = refused(streams=[SHARED, SHARED])
    assert f"the stream `{SHARED}` is listed twice" in said


def test_the_daemon_of_the_kcl_reads_only_streams_of_its_own_account():
    with pytest.raises(ValidationError, match="finds streams by name in its own account"):
        Pipeline.model_validate(least(source={**least()["source"], "kinesis": {"stream": SHARED}}, coordination="kcl"))


@pytest.mark.parametrize(
    ("text", "called"),
    [(SHARED, ID), (ID, ID), ("returns", "returns@444455556666.eu-west-1"), ("flights", "flights"), ("other", "other")],
)
def test_a_person_may_leave_out_what_is_clear(text, called):
    streams = ["flights", SHARED, SHARED.replace("flights", "returns")]
    assert KinesisSource.model_validate({"streams": streams, "region": "eu-west-1"}).called(text) == called


def test_a_worker_is_allowed_the_stream_of_the_other_account_and_bootstrap_does_not_make_it():
    made = pipeline(streams=[SHARED, "flights"], region="eu-west-1", retrieval="fan_out")
    own = "arn:aws:kinesis:eu-west-1:111122223333:stream/flights"
    found = [(each.actions, each.resources) for each in needed(made, HERE) if each.service == "kinesis"]
    assert found == [
        (READ_STREAM, (SHARED, own)),
        (REGISTER, (SHARED, own)),
        (SUBSCRIBE, (f"{SHARED}/consumer/flights:*", f"{own}/consumer/flights:*")),
    ]
    (made_by_us,) = [each.resources for each in accesses(made, Role.BOOTSTRAP, HERE) if each.service == "kinesis"]
    assert made_by_us == (own,)
    only = accesses(pipeline(stream=SHARED), Role.BOOTSTRAP, HERE)
    assert not [each for each in only if each.service == "kinesis"]


def test_the_owner_of_a_stream_allows_reading_it_and_its_consumer():
    made = pipeline(streams=[SHARED, "flights"], region="eu-west-1", retrieval="fan_out")
    consumer = f"{SHARED}/consumer/flights:CREATED"
    found = resource_policies(made, HERE)
    assert list(found) == [SHARED, consumer]
    for resource, actions in ((SHARED, {*READ_STREAM, *REGISTER}), (consumer, set(SUBSCRIBE))):
        (statement,) = found[resource]["Statement"]
        assert (set(statement["Action"]), statement["Resource"]) == (actions, resource)
        assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    polled = resource_policies(pipeline(stream=SHARED), HERE)
    assert [each["Statement"][0]["Action"] for each in polled.values()] == [sorted(READ_STREAM)]
    assert resource_policies(pipeline(stream=SHARED), Account("444455556666", "eu-west-1")) == {}
    assert resource_policies(pipeline(stream="flights"), HERE) == {}
