import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream.batch import ARRIVAL, DATA, FIRST_READ, ORIGIN, PARTITION_KEY, RAW_SCHEMA, SEQUENCE
from stream.budget import ByteBudget
from stream.contracts import Shard, Start, StartKind
from stream.source.bounded import BLOCK_BYTES, Block, BoundedSource, Part, place_of, sequence_of
from tests.unit.metrics.every_event import FixedClock

START = Start(StartKind.TRIM_HORIZON)
SHARD = Shard("objects", "part-1")


@dataclass(frozen=True)
class Numbers:
    """A piece with ``count`` records, ``step`` to a block; every third number is missing, as blank lines are."""

    piece: int
    count: int
    step: int
    again: bool = False

    @property
    def numbers(self):
        return [number for number in range(1, self.count + 1) if number % 3]

    async def blocks(self, behind, until=None):
        left = [number for number in self.numbers if number > behind]
        for at in range(0, len(left), self.step):
            chosen = left[at : at + self.step]
            bodies = [f"{self.piece}/{number}".encode() for number in chosen]
            frame = pl.DataFrame(
                {ARRIVAL: [datetime(2026, 1, 1, tzinfo=UTC)] * len(chosen), PARTITION_KEY: ["k"] * len(chosen), DATA: bodies},
                schema={name: RAW_SCHEMA[name] for name in (ARRIVAL, PARTITION_KEY, DATA)},
            )
            first = pl.DataFrame([("s", str(n), 0, 1) for n in chosen], schema=FIRST_READ, orient="row") if self.again else None
            yield Block(pl.Series(chosen, dtype=pl.UInt64), frame, first)


def opened(pieces, limit=8 * BLOCK_BYTES):
    budget = ByteBudget(limit)
    return BoundedSource("objects", [Part(SHARD.shard_id, pieces)], budget=budget, clock=FixedClock(), emit=lambda _event: None), budget


async def read(source, budget, after=ORIGIN, until=None):
    pages = []
    async for page in source.read(SHARD, after, START, until):
        pages.append(page)
        budget.release(page.held)
    return pages


def bodies(pages):
    return [body for page in pages for body in page.batch.frame[DATA]]


def whole(pieces):
    return [f"{piece.piece}/{number}".encode() for piece in pieces for number in piece.numbers]


PIECES = st.lists(st.tuples(st.integers(0, 14), st.integers(1, 5)), min_size=1, max_size=4)


@given(PIECES, st.data())
def test_any_range_read_again_gives_exactly_its_records(shapes, data):
    pieces = [Numbers(at, *shape) for at, shape in enumerate(shapes, 1)]
    source, budget = opened(pieces)
    pages = asyncio.run(read(source, budget))
    every = [(int(seq), body) for page in pages for seq, body in page.batch.frame.select(SEQUENCE, DATA).iter_rows()]
    assert [body for _, body in every] == whole(pieces)
    assert [seq for seq, _ in every] == sorted({seq for seq, _ in every})
    assert pages[-1].ended
    assert not any(page.ended for page in pages[:-1])
    assert budget.held == 0
    places = [ORIGIN, *(seq for seq, _ in every)]
    after = data.draw(st.sampled_from(places))
    last = data.draw(st.sampled_from([seq for seq in places if seq >= after]))
    again = asyncio.run(read(source, budget, after, last))
    assert bodies(again) == [body for seq, body in every if after < seq <= last]
    assert again == [] or again[-1].position == last
    assert bodies(asyncio.run(read(source, budget, after))) == [body for seq, body in every if seq > after]


def test_a_sequence_number_encodes_piece_and_record():
    assert place_of(sequence_of(3, 17)) == (3, 17)
    assert place_of(ORIGIN) == (0, 0)
    assert sequence_of(1, 1) > ORIGIN


def test_lineage_stays_with_its_rows_if_a_range_ends_inside_a_block():
    source, budget = opened([Numbers(1, 10, 5, again=True)])
    (page,) = asyncio.run(read(source, budget, until=sequence_of(1, 4)))
    assert page.batch.first_read[SEQUENCE].to_list() == ["1", "2", "4"]
    assert page.batch.rows == 3


def test_a_reader_closed_early_leaves_nothing_in_the_budget():
    async def body():
        source, budget = opened([Numbers(1, 30, 5)])
        pages = source.read(SHARD, ORIGIN, START)
        page = await anext(pages)
        await pages.aclose()
        budget.release(page.held)
        assert budget.held == 0

    asyncio.run(body())
