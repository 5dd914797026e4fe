"""Reading up to records that somebody else named."""

import asyncio

import polars as pl
import pytest

from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch
from stream.budget import ByteBudget
from stream.contracts import Page, Shard, Start, StartKind
from stream.events import EventIncomplete
from stream.source.announced import ReadAnnounced

SHARD = Shard("s", "shardId-1")
HORIZON = Start(StartKind.TRIM_HORIZON)


def page(*numbers, position=None, ended=False):
    frame = pl.DataFrame(
        {
            SEQUENCE: [str(number) for number in numbers],
            SUBSEQUENCE: [0] * len(numbers),
            ARRIVAL: [0] * len(numbers),
            PARTITION_KEY: ["k"] * len(numbers),
            DATA: [b"x"] * len(numbers),
            OUTCOME: [0] * len(numbers),
        },
        schema_overrides={name: kind for name, kind in RAW_SCHEMA.items() if name != ARRIVAL},
    ).cast({ARRIVAL: RAW_SCHEMA[ARRIVAL]})
    return Page(Batch.of(frame), numbers[-1] if position is None else position, 5, len(numbers), ended=ended)


class Pages:
    """A source with pages that were prepared; ``taken`` counts those that were asked for."""

    def __init__(self, *pages):
        self.budget = ByteBudget(1000)
        self.pages = pages
        self.taken = 0

    async def shards(self):
        return [SHARD]

    async def read(self, shard, after, start, until=None, complete_until=None):
        for each in self.pages:
            self.taken += 1
            yield each


def read(inner, announced, after=0, until=None, shard=SHARD):
    heard = []

    async def all_pages():
        return [each async for each in ReadAnnounced(inner, announced, heard.append).read(shard, after, HORIZON, until)]

    return asyncio.run(all_pages()), heard


def test_reading_pauses_with_the_page_that_reaches_the_last_record():
    inner = Pages(page(1, 2), page(3, 9), page(10))
    pages, heard = read(inner, {"shardId-1": (2, 3)})
    assert [(each.position, each.paused) for each in pages] == [(2, False), (9, True)]
    assert (inner.taken, heard) == (2, [])


def test_an_empty_reply_at_the_tip_does_not_end_the_wait_for_a_record():
    inner = Pages(page(position=0), page(position=0), page(4))
    pages, _ = read(inner, {"shardId-1": (4,)})
    assert [each.paused for each in pages] == [False, False, True]


def test_what_is_sealed_already_is_not_read():
    inner = Pages(page(1))
    pages, _ = read(inner, {"shardId-1": (2, 3)}, after=3)
    assert [(each.position, each.batch.rows, each.paused) for each in pages] == [(3, 0, True)]
    assert pages[0].behind_ms > 0
    assert inner.taken == 0


def test_a_shard_that_was_not_announced_is_read_to_its_end():
    pages, _ = read(Pages(page(1), page(2, ended=True)), {"shardId-2": (1,)})
    assert [(each.paused, each.ended) for each in pages] == [(False, False), (False, True)]


def test_a_range_with_an_end_is_left_as_it_is():
    pages, _ = read(Pages(page(1), page(2)), {"shardId-1": (1,)}, until=2)
    assert [each.paused for each in pages] == [False, False]


@pytest.mark.parametrize(
    ("announced", "missing"),
    [((2, 8), 5), ((2, 4, 6, 8), 3), ((2, 3, 4, 5, 6, 7, 8), 0), ((8,), 0)],
)
def test_unannounced_records_between_announced_ones_are_counted(announced, missing):
    _, heard = read(Pages(page(1, 2, 3), page(4, 5, 6), page(7, 8, 9)), {"shardId-1": announced})
    assert heard == ([EventIncomplete("s", "shardId-1", len(announced), missing)] if missing else [])
