"""Segments that are passed to the exporter instead of being re-read."""

import asyncio

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream.audit.export_options import Shape
from stream.audit.ledger import Segment, read_segment
from stream.audit.spans import requests
from stream.worker.receivers.log_units import LogUnits
from stream.worker.receivers.recent_segments import RecentSegments
from tests.sealed import shard_id, three_units


def of_size(size):
    return Segment(None, pl.DataFrame({"n": pl.Series([0] * size, dtype=pl.UInt8)}))


def test_a_segment_can_be_taken_once():
    recent, segment = RecentSegments(100), of_size(40)
    recent.put("a", segment)
    assert recent.take("a") is segment
    assert recent.take("a") is None


def test_the_oldest_segments_are_dropped_first():
    recent = RecentSegments(100)
    for name in "abc":
        recent.put(name, of_size(40))
    assert [recent.take(name) is not None for name in "abc"] == [False, True, True]


def test_a_segment_that_is_too_large_is_not_kept_and_displaces_nothing():
    recent = RecentSegments(100)
    recent.put("a", of_size(100))
    recent.put("b", of_size(101))
    assert recent.take("a") is not None
    assert recent.take("b") is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcde"), st.integers(0, 120)), max_size=40))
def test_the_total_size_is_limited(calls):
    recent, held = RecentSegments(100), {}
    for put, name, size in calls:
        if put:
            recent.put(name, of_size(size))
            held[name] = size
        else:
            found = recent.take(name)
            assert found is None or found.frame.height == held[name]
    assert sum(segment.frame.height for name in "abcde" if (segment := recent.take(name))) <= 100


def test_a_kept_segment_gives_the_same_requests_as_the_ledger():
    async def run():
        sealed = await three_units()
        ledger = sealed.stores.targets["ledger"]
        areas = sealed.stores.areas(sealed.root.url, "events")
        link, stored, urls = await LogUnits(sealed.log, "events", areas, ledger).read(shard_id(0), 0)
        kept = read_segment((await ledger.get(link.ledger.key)).body)
        await ledger.delete(link.ledger.key)
        recent = RecentSegments(2**20)
        recent.put(link.ledger.sha256, kept)
        handed = await LogUnits(sealed.log, "events", areas, ledger, recent=recent).read(shard_id(0), 0)
        assert handed == (link, kept, urls)
        return [[bytes(request.body) for request in requests(link, segment, urls, Shape())] for segment in (stored, handed[1])]

    from_ledger, from_hand = asyncio.run(run())
    assert from_ledger == from_hand != []
