import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.local.kpl import MAGIC, UserRecord, aggregate, varint

RECORDS = st.lists(
    st.builds(
        UserRecord,
        partition_key=st.text(min_size=1, max_size=8),
        explicit_hash_key=st.none() | st.integers(0, 2**128 - 1).map(str),
        data=st.binary(max_size=300),
    ),
    min_size=1,
    max_size=20,
)


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """A protobuf message by field number, for varint and length-delimited fields."""
    found: list[tuple[int, int | bytes]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        value: int | bytes = number()
        if tag & 7 == 2:
            assert isinstance(value, int)
            value, at = message[at : at + value], at + value
        found.append((tag >> 3, value))
    return found


def _records(payload: bytes) -> list[UserRecord]:
    keys = [value.decode() for field, value in _fields(payload) if field == 1 and isinstance(value, bytes)]
    hash_keys = [value.decode() for field, value in _fields(payload) if field == 2 and isinstance(value, bytes)]
    records = []
    for field, value in _fields(payload):
        if field == 3 and isinstance(value, bytes):
            members = dict(_fields(value))
            hash_key = hash_keys[int(members[2])] if 2 in members else None
            records.append(UserRecord(keys[int(members[1])], hash_key, bytes(members[3])))
    return records


@given(RECORDS)
def test_an_aggregate_can_be_read_back(records: list[UserRecord]) -> None:
    blob = aggregate(records)
    payload = blob[4:-16]
    assert blob[:4] == MAGIC == bytes.fromhex("f3899ac2")
    assert blob[-16:] == hashlib.md5(payload).digest()  # noqa: S324 - the format's own checksum
    assert _records(payload) == records


def test_a_small_aggregate_has_the_documented_bytes() -> None:
    blob = aggregate([UserRecord("a", None, b"x"), UserRecord("a", "7", b"")])
    assert blob[4:-16] == bytes.fromhex("0a0161 120137 1a050800 1a0178 1a06 0800 1000 1a00".replace(" ", ""))


def test_an_empty_aggregate_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        aggregate([])


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, 9 * "ff" + "01")],
)
def test_a_varint_has_the_documented_bytes(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded
