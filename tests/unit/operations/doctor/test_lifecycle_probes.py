"""What lifecycle rules would do to the objects of a pipeline, as `stream doctor` tells it."""

import asyncio

import pytest

from stream.aws.errors import AwsFatal, AwsRetryable
from stream.errors import DefinitionError
from stream.operations.doctor.lifecycle_probes import lifecycle_probes
from stream.operations.doctor.probe import Note
from stream.pipeline.model import Pipeline

REDSHIFT = {
    "staging": "s3://staging/a/",
    "table": "flights",
    "database": "dev",
    "workgroup": "analytics",
    "iam_role": "default",
    "keep_staged": "3d",
}
KINESIS = {"kinesis": {"stream": "flights"}, "schema": {"carrier": "string"}}


class Buckets:
    """Answers as S3 does for buckets with ``rules``, or with an error; `tests/integration/test_doctor.py` asks moto the same."""

    region = "eu-west-1"

    def __init__(self, rules):
        self.rules = rules

    async def ask(self, service, operation, call, *, Bucket):  # noqa: N803 - as boto names it
        assert (service, operation, call.action) == ("s3", "get_bucket_lifecycle_configuration", "s3:GetLifecycleConfiguration")
        found = self.rules.get(Bucket)
        if found is None:
            raise AwsFatal("there is no configuration", code="NoSuchLifecycleConfiguration")
        if isinstance(found, Exception):
            raise found
        return {"Rules": found}


def answers(rules, source=KINESIS):
    sinks = [
        {"s3": {"url": "s3://lake/flights/"}},
        {"iceberg": {"location": "s3://tables/t/", "table": "lake.flights"}},
        {"redshift": REDSHIFT},
        {"files": {"name": "here", "url": "file:./lake"}},
    ]
    pipeline = Pipeline.model_validate({"application": "flights", "source": source, "sinks": sinks, "state": "s3://lake/_stream/"})
    found = {}
    for probe in lifecycle_probes(pipeline, Buckets(rules)):
        assert probe.check == "lifecycle"
        try:
            found[probe.what] = asyncio.run(probe.attempt())
        except (Note, DefinitionError) as error:
            found[probe.what] = error
    return found


def test_without_a_region_the_rules_are_not_blamed(monkeypatch):
    def region(_):
        raise DefinitionError("no AWS region is set")

    monkeypatch.setattr(Buckets, "region", property(region))
    found = answers({})
    assert {type(each) for each in found.values()} == {Note}
    assert {(str(each), each.remedy) for each in found.values()} == {
        ("no AWS region is set", "set or correct what this names; nothing was asked of AWS")
    }


def rule(prefix="", days=30, **more):
    return {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": days}, **more}


def of_lake(*rules):
    return answers({"lake": list(rules)})["rules of bucket lake"]


def test_each_bucket_is_asked_once_and_may_have_no_rules():
    assert answers({}) == {f"rules of bucket {name}": "there are none" for name in ("lake", "tables", "staging")}


@pytest.mark.parametrize(
    "prefix", ["", "_str", "_stream/", "_stream/flights/", "_stream/flights/commits/", "_stream/flights/commits/flights/shardId-1"]
)
def test_a_rule_that_deletes_manifests_is_a_failure(prefix):
    found = of_lake(rule(prefix))
    assert type(found) is DefinitionError
    assert "the rule 'r' deletes objects after 30 days below _stream/flights/commits/" in str(found)
    assert "the next worker would start from the beginning" in str(found)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            {"ID": "old", "Status": "Enabled", "Prefix": "_stream/flights/claims/", "Expiration": {"Days": 1}},
            "'old' deletes objects after a day",
        ),
        (
            rule("_stream/flights/claims/", Filter={"And": {"Prefix": "_stream/", "ObjectSizeGreaterThan": 10}}),
            "deletes objects after 30 days",
        ),
        (rule("_stream/", Expiration={"Date": "2027-01-01"}), "deletes objects on 2027-01-01"),
        (
            rule(
                "_stream/", Expiration={}, Transitions=[{"Days": 9, "StorageClass": "STANDARD_IA"}, {"Days": 90, "StorageClass": "GLACIER"}]
            ),
            "moves objects to GLACIER, from where they cannot be read, after 90 days",
        ),
    ],
)
def test_every_form_of_a_rule_is_understood(found, told):
    answer = of_lake(found)
    assert type(answer) is DefinitionError
    assert told in str(answer)
    assert "claims/" in str(answer)


@pytest.mark.parametrize(
    "harmless",
    [
        rule("_stream/flights/ledger/"),
        rule("_stream/flights/rejects/"),
        rule("_stream/flights/pauses/changes/"),
        rule("_stream/flights/export/flights/parked/"),
        rule("_stream/other/"),
        rule("raw/"),
        rule(Status="Disabled"),
        rule(Filter={"Tag": {"Key": "a", "Value": "b"}}),
        rule(Filter={"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}}),
        rule(Expiration={"ExpiredObjectDeleteMarker": True}),
        rule(Expiration={}, NoncurrentVersionExpiration={"NoncurrentDays": 1}),
        rule(Expiration={}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
        rule(Expiration={}, Transitions=[{"Days": 1, "StorageClass": "INTELLIGENT_TIERING"}]),
    ],
)
def test_rules_that_delete_nothing_that_is_needed_are_fine(harmless):
    assert of_lake(harmless) == "none of 1 deletes or archives what is needed"


def test_files_may_expire_and_it_is_noted_what_that_means():
    found = of_lake(rule("flights/"))
    assert type(found) is Note
    assert str(found).startswith(
        "the rule 'r' deletes objects after 30 days below flights/: from then on `stream audit verify` needs --from"
    )


def test_files_of_a_table_may_not_expire_and_staged_ones_should_not():
    found = answers({"tables": [rule()], "staging": [rule("a/", 1)]})
    assert type(found["rules of bucket tables"]) is DefinitionError
    assert "the files of the table lake.flights" in str(found["rules of bucket tables"])
    assert type(found["rules of bucket staging"]) is Note
    assert "a unit that waits longer for its load parks its shard; the loader removes files by itself, 3d after that" in str(
        found["rules of bucket staging"]
    )


def test_objects_that_are_to_be_read_are_looked_after_too():
    source = {"s3": {"url": "s3://landing/in/"}, "schema": {"carrier": "string"}}
    found = answers({"landing": [rule("in/", 2)]}, source)["rules of bucket landing"]
    assert type(found) is Note
    assert "deletes objects after 2 days below in/: objects that are not read before that are lost" in str(found)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (AwsFatal("AccessDenied", code="AccessDenied", remedy="grant it"), "look at it yourself, or allow s3:GetLifecycleConfiguration to"),
        (AwsRetryable("no answer", code="Timeout"), "look at it yourself"),
        (AwsFatal("NoSuchBucket", code="NoSuchBucket", remedy="check the name"), "check the name"),
    ],
)
def test_rules_that_may_not_be_read_are_noted_and_keep_no_worker_from_starting(error, remedy):
    found = answers({"lake": error})["rules of bucket lake"]
    assert type(found) is Note
    assert found.remedy.startswith(remedy)
    assert "for which workers need no permission" in str(found)
