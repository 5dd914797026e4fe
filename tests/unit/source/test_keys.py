"""Partition keys are counted exactly, including those inside aggregates, with the hash keys that Kinesis assigns."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.pages import RECORD_SCHEMA
from stream.batch import ARRIVAL, DATA, PARTITION_KEY, SEQUENCE
from stream.source.keys import counted, hash_key
from stream.transform.masking import keyed_hash
from tests.unit.source.kpl import User, aggregate, user

WHOLE = (0, 2**128 - 1)
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
USERS = st.builds(user, KEYS, st.binary(max_size=20), st.none() | st.integers(0, 2**128 - 1))
RECORDS = st.lists(st.tuples(KEYS, st.binary(max_size=20) | st.lists(USERS, min_size=1, max_size=5)), max_size=30)


def page(records):
    columns = {SEQUENCE: [], ARRIVAL: [], PARTITION_KEY: [], DATA: []}
    for at, (key, data) in enumerate(records):
        columns[SEQUENCE].append(str(at))
        columns[ARRIVAL].append(None)
        columns[PARTITION_KEY].append(key)
        columns[DATA].append(data if isinstance(data, bytes) else aggregate(data))
    return pl.DataFrame(columns, schema=RECORD_SCHEMA)


@given(RECORDS, st.integers(0, 30))
def test_every_user_record_counts_once_under_its_own_key(records, cut):
    sample = counted([page(records[:cut]), page(records[cut:])], *WHOLE)
    users = Counter()
    parts = defaultdict(float)
    for key, data in records:
        inside = [user(key, data)] if isinstance(data, bytes) else data
        for each in inside:
            place = hash_key(each.key) if each.explicit is None else each.explicit
            users[each.key, place] += 1
            parts[each.key, place] += 1 / len(inside)
    found = Counter()
    weights = defaultdict(float)
    for each in sample.keys:
        found[each.key, each.place] += each.users
        weights[each.key, each.place] += each.records
    assert found == users
    assert weights == pytest.approx(parts)
    assert sample.users == sum(users.values())
    assert sample.records == pytest.approx(len(records))


@given(RECORDS)
def test_sizes_add_up_to_what_kinesis_counts(records):
    sample = counted([page(records)], *WHOLE)
    size = sum(len(key.encode()) + len(data if isinstance(data, bytes) else aggregate(data)) for key, data in records)
    assert sample.size == pytest.approx(size)
    assert sum(each.size for each in sample.keys) == pytest.approx(size)
    assert sample.payload == sum(len(data) if isinstance(data, bytes) else sum(len(each.data) for each in data) for _, data in records)
    assert [each.size for each in sample.keys] == sorted((each.size for each in sample.keys), reverse=True)


def test_user_records_share_the_size_of_their_aggregate_in_proportion_to_their_own():
    sample = counted([page([("outer", [user("a", b"x" * 29), user("b", b"x" * 9)])])], *WHOLE)
    assert [each.key for each in sample.keys] == ["a", "b"]
    assert sample.keys[0].size == pytest.approx(3 * sample.keys[1].size)


def test_hash_keys_are_those_of_put_record():
    # The example of every MD5 implementation: MD5("a") = 0cc175b9c0f1b6a831c399e269772661.
    assert hash_key("a") == 0x0CC175B9C0F1B6A831C399E269772661


def test_a_record_whose_key_hashes_outside_its_shard_has_no_known_hash_key():
    half = 2**127
    assert hash_key("a") < half
    records = [("a", b"1"), ("outer", [User("a", b"1", half + 5), User("a", b"1")])]
    upper = counted([page(records)], half, WHOLE[1])
    assert {(each.key, each.place): each.users for each in upper.keys} == {("a", None): 2, ("a", half + 5): 1}


def test_with_a_secret_digests_replace_keys_and_hash_keys_stay():
    plain = counted([page([("a", b"1"), ("b", b"22")])], *WHOLE)
    hidden = counted([page([("a", b"1"), ("b", b"22")])], *WHOLE, keyed_hash(b"secret", 16))
    assert [each.place for each in hidden.keys] == [each.place for each in plain.keys]
    wanted = [hmac.new(b"secret", each.key.encode(), hashlib.sha256).hexdigest()[:16] for each in plain.keys]
    assert [each.key for each in hidden.keys] == wanted


def test_an_empty_sample_has_no_keys():
    assert counted([], *WHOLE) == counted([page([])], *WHOLE)
    assert counted([], *WHOLE).keys == ()


def test_the_effective_sample_size_is_the_count_for_equal_records_and_one_for_a_dominant_one():
    equal = counted([page([(f"{n:04}", b"") for n in range(1000)])], *WHOLE)
    assert equal.worth_bytes == pytest.approx(1000)
    great = counted([page([*((f"{n:04}", b"") for n in range(1000)), ("great", b"x" * 10**6)])], *WHOLE)
    assert great.worth_bytes == pytest.approx(1, abs=0.01)
    assert great.worth_records == pytest.approx(1001)
