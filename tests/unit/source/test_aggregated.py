from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.aws.pages import RECORD_SCHEMA
from stream.batch import DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.source import aggregated
from stream.source.aggregated import MAGIC, HashRange, OutOfRange, expand, marked, user_records
from tests.unit.source.kpl import User, aggregate, delimited, message, number, sealed, user, varint

ARRIVED = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
HALF = 2**127
users = st.builds(
    User,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.binary(max_size=200),
    st.none() | st.integers(0, 2**128 - 1),
    st.booleans(),
)


def page(*bodies: bytes) -> pl.DataFrame:
    count = len(bodies)
    return pl.DataFrame(
        {
            SEQUENCE: [str(100 + i) for i in range(count)],
            "_arrival": [ARRIVED] * count,
            PARTITION_KEY: ["outer"] * count,
            DATA: list(bodies),
        },
        schema=RECORD_SCHEMA,
    )


def digest_of(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest())


@given(st.lists(users, min_size=1, max_size=30))
def test_every_aggregate_reads_back_as_its_user_records(items: list[User]) -> None:
    found = user_records(aggregate(items))
    assert found is not None
    assert [(record.partition_key, record.data, record.explicit_hash) for record in found] == [
        (item.key, item.data, item.explicit) for item in items
    ]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=40) | st.lists(users, min_size=1, max_size=5), max_size=8), st.integers(0, 2**128 - 1))
def test_the_order_of_a_page_is_kept_and_no_record_is_added_or_lost(parts: list[bytes | list[User]], cut: int) -> None:
    bodies = [part if isinstance(part, bytes) else aggregate(part) for part in parts]
    frame = expand(page(*bodies), HashRange(0, cut))
    expected = []
    for index, part in enumerate(parts):
        if isinstance(part, bytes):
            expected.append((str(100 + index), 0, ARRIVED, "outer", part, 0))
        else:
            for sub, item in enumerate(part):
                position = digest_of(item.key) if item.explicit is None else item.explicit
                outcome = Outcome.PENDING if position <= cut else Outcome.OUT_OF_RANGE
                expected.append((str(100 + index), sub, ARRIVED, item.key, item.data, int(outcome)))
    assert frame.schema == RAW_SCHEMA
    assert frame.rows() == expected


@given(st.lists(users, min_size=1, max_size=4), st.data())
def test_damaged_bytes_never_raise(items: list[User], data: st.DataObject) -> None:
    body = bytearray(message(items))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    found = user_records(sealed(bytes(body)))
    assert found is None or len(found) > 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_after_the_magic_number_never_raise(body: bytes) -> None:
    user_records(MAGIC + body)
    user_records(sealed(body))


def test_a_wrong_checksum_makes_an_ordinary_record() -> None:
    good = aggregate([user("k", b"x")])
    damaged = good[:-1] + bytes([good[-1] ^ 1])
    frame = expand(page(damaged, good), HashRange())
    assert frame.select(PARTITION_KEY, DATA, SUBSEQUENCE).rows() == [("outer", damaged, 0), ("k", b"x", 0)]


INNER = number(1, 0) + delimited(3, b"data")
KEY = delimited(1, b"key")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        KEY,
        delimited(3, INNER),
        KEY + delimited(3, number(1, 1) + delimited(3, b"data")),
        KEY + delimited(3, INNER + number(2, 0)),
        KEY + delimited(3, delimited(3, b"data")),
        KEY + delimited(3, number(1, 0)),
        KEY + delimited(3, INNER)[:-1],
        KEY + number(3, 5),
        KEY + delimited(3, delimited(1, b"0") + delimited(3, b"data")),
        delimited(1, b"\xff") + delimited(3, INNER),
        KEY + delimited(2, b"-5") + delimited(3, INNER),
        KEY + delimited(2, b"") + delimited(3, INNER),
        KEY + delimited(3, INNER) + varint(9 << 3 | 3),
        KEY + delimited(3, INNER) + varint(0 << 3 | 2) + b"\x00",
        KEY + delimited(3, INNER) + b"\x80" * 11,
        KEY + delimited(3, INNER) + varint(9 << 3 | 1) + b"1234567",
    ],
)
def test_a_malformed_message_with_a_correct_checksum_is_an_ordinary_record(body: bytes) -> None:
    assert user_records(sealed(body)) is None
    assert expand(page(sealed(body)), HashRange()).get_column(DATA).to_list() == [sealed(body)]


def test_unknown_fields_and_any_field_order_are_accepted() -> None:
    body = delimited(3, delimited(3, b"data") + number(1, 0)) + number(7, 300) + varint(8 << 3 | 1) + b"12345678" + KEY
    found = user_records(sealed(body + varint(9 << 3 | 5) + b"1234"))
    assert found is not None
    assert [(record.partition_key, record.data) for record in found] == [("key", b"data")]


def test_aggregates_within_aggregates_are_not_opened() -> None:
    inner = aggregate([user("k", b"x")])
    frame = expand(page(aggregate([user("o", inner)])), HashRange())
    assert frame.get_column(DATA).to_list() == [inner]


def test_too_many_or_too_large_user_records_leave_the_aggregate_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = aggregate([user("key", b"12345")] * 10)
    monkeypatch.setattr(aggregated, "MAX_USER_RECORDS", 10)
    monkeypatch.setattr(aggregated, "MAX_USER_BYTES", 80)
    assert len(user_records(packed) or ()) == 10
    monkeypatch.setattr(aggregated, "MAX_USER_RECORDS", 9)
    assert user_records(packed) is None
    monkeypatch.setattr(aggregated, "MAX_USER_RECORDS", 10)
    monkeypatch.setattr(aggregated, "MAX_USER_BYTES", 79)
    assert user_records(packed) is None


def test_two_shards_share_an_aggregate_between_their_ranges_without_loss_or_duplicates() -> None:
    rng = random.Random(7)
    items = [user(f"key {i}", str(i).encode(), rng.randrange(2**128) if i % 3 == 0 else None) for i in range(200)]
    low = expand(page(aggregate(items)), HashRange(0, HALF - 1))
    high = expand(page(aggregate(items)), HashRange(HALF, 2**128 - 1))
    kept_low = low.filter(pl.col(OUTCOME) == int(Outcome.PENDING)).get_column(SUBSEQUENCE).to_list()
    kept_high = high.filter(pl.col(OUTCOME) == int(Outcome.PENDING)).get_column(SUBSEQUENCE).to_list()
    assert sorted(kept_low + kept_high) == list(range(200))
    assert kept_low
    assert kept_high
    assert low.height == high.height == 200


def test_the_range_is_inclusive_and_keep_ignores_it() -> None:
    packed = page(aggregate([user("k", b"", value) for value in (9, 10, 20, 21)]))
    dropped, pending = int(Outcome.OUT_OF_RANGE), int(Outcome.PENDING)
    assert expand(packed, HashRange(10, 20)).get_column(OUTCOME).to_list() == [dropped, pending, pending, dropped]
    assert expand(packed, HashRange(10, 20, OutOfRange.KEEP)).get_column(OUTCOME).to_list() == [pending] * 4


def test_a_page_without_aggregates_is_unchanged() -> None:
    frame = expand(page(b"a", b"", MAGIC), HashRange(5, 6))
    assert frame.get_column(DATA).to_list() == [b"a", b"", MAGIC]
    assert frame.get_column(OUTCOME).to_list() == [0, 0, 0]
    assert expand(page(), HashRange()).schema == RAW_SCHEMA


@given(st.lists(st.binary(max_size=14) | st.binary(max_size=3).map(lambda rest: MAGIC + rest) | st.just(MAGIC[:3])), st.integers(0, 3))
def test_rows_that_begin_like_aggregates_are_marked_and_payload_bytes_are_summed(bodies: list[bytes], cut: int) -> None:
    frame = page(*bodies).slice(cut)
    assert marked(frame) == [at for at, body in enumerate(bodies[cut:]) if body.startswith(MAGIC)]
    assert Batch.of(frame).payload_bytes == sum(map(len, bodies[cut:]))
