from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.batch import SeqRange
from stream.commit.manifest import (
    FileEntry,
    Kind,
    Manifest,
    State,
    decode,
    decode_start,
    digest,
    encode,
    encode_start,
    is_canonical,
    seal_of,
    with_seal,
)
from stream.contracts import Start, StartKind
from stream.errors import Halted

TEXT = st.text(max_size=20)
FILES = st.lists(st.builds(FileEntry, TEXT, TEXT, st.integers(0, 2**40), st.integers(0, 2**31), TEXT), max_size=3).map(tuple)
MANIFESTS = st.builds(
    Manifest,
    st.sampled_from(Kind),
    st.sampled_from(State),
    TEXT,
    TEXT,
    TEXT,
    after=st.integers(0, 2**186).map(str),
    last=st.none() | st.integers(0, 2**186).map(str),
    records=st.integers(0, 2**31),
    outcomes=st.dictionaries(st.sampled_from(["written", "filtered"]), st.integers(1, 9)),
    files=FILES,
    superseded=FILES,
    previous=TEXT,
    children=st.lists(TEXT, max_size=2).map(tuple),
)


@given(MANIFESTS)
def test_a_manifest_reads_back_and_equal_manifests_have_equal_bytes(manifest):
    body = encode(manifest)
    assert decode(body, "key") == manifest
    assert encode(decode(body, "key")) == body


@given(MANIFESTS, MANIFESTS)
def test_different_manifests_have_different_digests(one, other):
    assert (digest(encode(one)) == digest(encode(other))) == (one == other)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'{"kind":"unit","state":"later","application":"","stream":"","shard":""}', b"\xff", b'{"kind":1}']
)
def test_an_unreadable_manifest_halts_the_shard_and_is_named(body):
    with pytest.raises(Halted, match=r"commits/x\.json"):
        decode(body, "commits/x.json")


def test_a_newer_format_halts_and_asks_for_the_newer_build():
    body = encode(msgspec.structs.replace(Manifest(Kind.UNIT, State.INTENT, "a", "s", "h"), format=2))
    with pytest.raises(Halted, match="run the newer build"):
        decode(body, "k")


@pytest.mark.parametrize("change", [{"kind": "merged"}, {"outcomes": []}, {"files": {"s3": []}}])
def test_a_newer_format_halts_whatever_else_is_new_in_it(change):
    body = encode(msgspec.structs.replace(Manifest(Kind.UNIT, State.INTENT, "a", "s", "h"), format=2))
    with pytest.raises(Halted, match="run the newer build"):
        decode(msgspec.json.encode(msgspec.json.decode(body) | change), "k")


@given(MANIFESTS, st.dictionaries(st.from_regex(r"new_[a-z]{1,5}", fullmatch=True), st.integers() | TEXT | st.lists(TEXT), max_size=2))
def test_a_seal_covers_fields_that_this_build_does_not_know(manifest, fields):
    sealed = with_seal(manifest)
    assert (seal_of(encode(sealed)), is_canonical(encode(sealed))) == (sealed.seal, True)
    newer = msgspec.json.decode(encode(msgspec.structs.replace(sealed, seal=""))) | fields
    seal = digest(msgspec.json.encode(newer, order="sorted"))
    body = msgspec.json.encode(newer | {"seal": seal}, order="sorted")
    assert (seal_of(body), is_canonical(body)) == (seal, True)
    assert decode(body, "key") == msgspec.structs.replace(sealed, seal=seal)
    edited = msgspec.json.encode(newer | {"seal": seal, "records": manifest.records + 1}, order="sorted")
    assert seal_of(edited) != seal
    assert not is_canonical(body + b" ")


def test_only_units_have_a_range():
    assert Manifest(Kind.UNIT, State.INTENT, "a", "s", "h", after="1", last="2").span == SeqRange(1, 2)
    with pytest.raises(ValueError, match="has no range"):
        _ = Manifest(Kind.END, State.SEALED, "a", "s", "h").span


MOMENTS = st.datetimes(timezones=st.just(UTC)).map(lambda moment: Start(StartKind.AT_TIMESTAMP, moment))


@given(st.sampled_from([Start(StartKind.TRIM_HORIZON), Start(StartKind.LATEST)]) | MOMENTS)
def test_a_start_position_reads_back(start):
    assert decode_start(encode_start(start), "k") == start


@pytest.mark.parametrize("body", [b"", b'{"kind": "sometime"}', b'{"kind": "at_timestamp", "timestamp": "noon"}'])
def test_an_unreadable_start_position_halts(body):
    with pytest.raises(Halted, match="starts/events"):
        decode_start(body, "starts/events")
