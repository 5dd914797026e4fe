import json
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.source.notifications import Beside, Named, Notice, read_notice

PLACE = ("lake", "in/")


def record(key, *, bucket="lake", event="ObjectCreated:Put", **about):
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), "size": 5, "eTag": "abc", **about}},
    }


def s3(*records):
    return json.dumps({"Records": list(records)})


def bus(key, *, kind="Object Created", bucket="lake"):
    about = {"key": key, "size": 5, "etag": "abc", "sequencer": "0"}
    return json.dumps({"version": "0", "source": "aws.s3", "detail-type": kind, "detail": {"bucket": {"name": bucket}, "object": about}})


def sns(message):
    return json.dumps({"Type": "Notification", "TopicArn": "arn", "Message": message})


KEYS = ["a.json", "a b/ü+1%20.json", "x/=&?.json", "🦆"]
FORMS = [
    lambda key: s3(record(key)),
    lambda key: sns(s3(record(key))),
    bus,
    lambda key: sns(bus(key)),
    lambda key: sns(sns(s3(record(key)))),
    lambda key: s3(record(key, event="s3:ObjectCreated:CompleteMultipartUpload")),
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_names_the_object_by_its_key_as_it_is(form, key):
    assert read_notice(form(f"in/{key}"), *PLACE) == Notice((Named(key, 5, "abc"),))


def test_a_message_may_name_several_and_say_why_others_do_not_count():
    body = s3(
        record("in/1"),
        record("in/2", event="ObjectRemoved:Delete"),
        record("other/3"),
        record("in/4", bucket="pond"),
        record("in/5", size=0),
        record("in/"),
    )
    found = read_notice(body, *PLACE)
    assert [each.key for each in found.named] == ["1", "5"]
    assert found.beside == (Beside.OTHER_EVENT, Beside.OTHER_PLACE, Beside.OTHER_PLACE, Beside.OTHER_PLACE)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "lake"}), Beside.TEST),
        (bus("in/a", kind="Object Deleted"), Beside.OTHER_EVENT),
        (bus("in/a", bucket="pond"), Beside.OTHER_PLACE),
        (bus("a"), Beside.OTHER_PLACE),
        (s3(record("in/a", event="ObjectRestore:Completed")), Beside.OTHER_EVENT),
        (s3(record("in/a", event="LifecycleExpiration:Delete")), Beside.OTHER_EVENT),
    ],
)
def test_what_names_no_object_to_read_says_why(body, why):
    assert read_notice(body, *PLACE) == Notice(beside=(why,))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no json",
        "[]",
        "{}",
        '"text"',
        "\ud800",
        json.dumps({"Records": []}),
        json.dumps({"Records": "x"}),
        json.dumps({"Records": [None]}),
        json.dumps({"Records": [{"eventSource": "aws:dynamodb", "eventName": "ObjectCreated:Put"}]}),
        s3({**record("in/a"), "s3": {"object": {"key": "in/a"}}}),
        s3({**record("in/a"), "s3": {"bucket": {"name": "lake"}, "object": {"key": 5}}}),
        s3({**record("in/a"), "s3": {"bucket": "lake", "object": []}}),
        json.dumps({"Type": "Notification", "Message": "no json"}),
        sns(sns(sns(s3(record("in/a"))))),
        json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {}}}),
    ],
)
def test_other_messages_are_distinguished_from_notifications_without_objects(body):
    found = read_notice(body, *PLACE)
    assert found.unreadable
    assert (found.named, found.beside) == ((), ())


NAMES = st.sampled_from(
    ["Records", "Message", "Type", "detail", "source", "detail-type", "s3", "bucket", "object", "key", "name", "eventSource", "eventName"]
)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)))
def test_no_json_makes_it_raise(content):
    found = read_notice(json.dumps(content), *PLACE)
    assert found.unreadable or found.named or found.beside


def test_a_bucket_without_prefix_takes_every_key():
    assert read_notice(s3(record("a/b")), "lake", "") == Notice((Named("a/b", 5, "abc"),))
