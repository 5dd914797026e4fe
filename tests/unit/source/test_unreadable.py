"""Where an object is given up is decided once, whatever each reader can read of it."""

import asyncio
import gzip
import json

import pytest

from stream.batch import DATA, Outcome
from stream.errors import Halted, Retryable
from stream.source.object_formats import Layout, ObjectCodec, ObjectFormat, Unreadable
from stream.source.objects import ObjectPiece, PinnedObject
from stream.source.unreadable import UNREADABLE, UnreadPart, note_of, notes_of
from stream.storage.memory import MemoryStore

GZIP, PLAIN = (Layout(ObjectFormat.NDJSON, codec) for codec in (ObjectCodec.GZIP, ObjectCodec.NONE))
GIVES_UP = (Unreadable,)


async def pinned(store, name, body):
    await store.put(name, body)
    info = await store.stat(name)
    return PinnedObject(name, info.size, info.version, info.modified.isoformat())


async def read(piece, after=0, until=None):
    """Records as (number, content), and the outcomes of their blocks."""
    found, outcomes = [], set()
    async for block in piece.blocks(after, until):
        found += zip(block.numbers.to_list(), block.frame[DATA].to_list(), strict=True)
        outcomes.add(block.outcome)
    return found, outcomes


def test_the_rest_is_one_record_with_a_number_of_its_own_wherever_reading_begins():
    async def main():
        objects, state = MemoryStore(), MemoryStore()
        lines = b"".join(b"%d\n" % number for number in range(1_000_000))
        packed = gzip.compress(lines, compresslevel=0)
        item = await pinned(objects, "a", packed[: len(packed) // 2])
        piece = ObjectPiece(objects, item, GZIP, note_of(state, "c", "s", 1), GIVES_UP)
        whole, outcomes = await read(piece)
        assert outcomes == {Outcome.PENDING, Outcome.DEAD_LETTERED}
        *records, (number, content) = whole
        assert number == UNREADABLE
        part = json.loads(content)
        assert (part["key"], part["version"], part["after"]) == ("a", item.version, len(records))
        assert records == [(at, b"%d" % (at - 1)) for at in range(1, len(records) + 1)]
        for after in (0, 1, len(records) - 1, len(records)):
            assert (await read(piece, after))[0] == whole[after:]
        assert (await read(piece, UNREADABLE))[0] == []

    asyncio.run(main())


def test_who_could_read_more_reads_no_more_than_was_noted_and_who_reads_less_does_not_pretend():
    async def main():
        objects, state = MemoryStore(), MemoryStore()
        item = await pinned(objects, "a", b"".join(b"%d\n" % number for number in range(10)))
        note = note_of(state, "c", "s", 1)
        part = UnreadPart(item.key, item.size, item.version, item.modified, 4, "why")
        assert await note.write(part) == part
        found, _ = await read(ObjectPiece(objects, item, PLAIN, note, GIVES_UP))
        assert [number for number, _ in found] == [1, 2, 3, 4, UNREADABLE]
        # It obeys the note also if it would not give up by itself.
        assert (await read(ObjectPiece(objects, item, PLAIN, note)))[0] == found
        # Not one byte of it is gzip: the four records are not there, and nothing is put in their place.
        with pytest.raises(Unreadable):
            await read(ObjectPiece(objects, item, GZIP, note, GIVES_UP))
        # Behind the noted place nothing needs to be readable.
        assert [number for number, _ in (await read(ObjectPiece(objects, item, GZIP, note, GIVES_UP), 4))[0]] == [UNREADABLE]

    asyncio.run(main())


def test_a_reader_that_stops_elsewhere_than_another_did_meanwhile_reads_again():
    async def main():
        objects, state = MemoryStore(), MemoryStore()
        item = await pinned(objects, "a", b"no gzip")
        listed = await notes_of(state, "c", "s", 1)
        other = UnreadPart(item.key, item.size, item.version, item.modified, 3, "another build")
        await note_of(state, "c", "s", 1).write(other)
        with pytest.raises(Retryable, match="after record 3, not 0"):
            await read(ObjectPiece(objects, item, GZIP, listed.of(1), GIVES_UP))

    asyncio.run(main())


def test_without_a_note_or_without_giving_up_it_is_an_error():
    async def main():
        objects, state = MemoryStore(), MemoryStore()
        item = await pinned(objects, "a", b"no gzip")
        for piece in (ObjectPiece(objects, item, GZIP), ObjectPiece(objects, item, GZIP, note_of(state, "c", "s", 1))):
            with pytest.raises(Unreadable, match="cannot be read as ndjson, compression gzip"):
                await read(piece)
        assert [info.key async for info in state.list("")] == []

    asyncio.run(main())


def test_a_note_that_was_damaged_is_named():
    async def main():
        state = MemoryStore()
        await state.put("unreadable/c/s/000000000000001.json", b"{")
        with pytest.raises(Halted, match=r"unreadable/c/s/000000000000001\.json"):
            await note_of(state, "c", "s", 1).read()

    asyncio.run(main())


def test_notes_are_found_by_one_listing_from_the_first_piece_that_is_wanted():
    async def main():
        state = MemoryStore()
        for piece in (3, 12):
            await note_of(state, "c", "s", piece).write(UnreadPart("k", 1, "v", "m", 0, str(piece)))
        for first, there in ((1, {3, 12}), (3, {3, 12}), (4, {12}), (13, set())):
            notes = await notes_of(state, "c", "s", first)
            assert {piece for piece in range(first, 20) if await notes.of(piece).read()} == there
        assert not [piece for piece in range(1, 20) if await (await notes_of(state, "c", "other", 1)).of(piece).read()]

    asyncio.run(main())


def test_a_note_that_allows_for_less_than_was_committed_counts_for_nothing():
    """Its writer had lost the shard. To obey it would leave records to a redrive that are in the output already."""

    async def main():
        objects, state = MemoryStore(), MemoryStore()
        item = await pinned(objects, "a", b"".join(b"%d\n" % number for number in range(10)))
        note = note_of(state, "c", "s", 1)
        await note.write(UnreadPart(item.key, item.size, item.version, item.modified, 4, "why"))
        found, _ = await read(ObjectPiece(objects, item, PLAIN, note, GIVES_UP), 6)
        assert [number for number, _ in found] == [7, 8, 9, 10]
        # Nor does it keep others from giving up further on: no unit can end as it says, so it is replaced.
        assert [number for number, _ in (await read(ObjectPiece(objects, item, GZIP, note, GIVES_UP), 6))[0]] == [UNREADABLE]
        assert (await note.read()).after == 6
        # One that allows for as much or more stays.
        assert (await note.write(UnreadPart(item.key, item.size, item.version, item.modified, 7, "later"), 6)).after == 6

    asyncio.run(main())


def test_a_range_that_extends_beyond_an_object_has_read_it_to_its_end_whatever_a_note_says():
    """The note of a worker that had lost the shard, written while another one read the object to its end."""

    async def main():
        objects, state = MemoryStore(), MemoryStore()
        item = await pinned(objects, "a", b"".join(b"%d\n" % number for number in range(10)))
        note = note_of(state, "c", "s", 1)
        await note.write(UnreadPart(item.key, item.size, item.version, item.modified, 4, "why"))
        piece = ObjectPiece(objects, item, PLAIN, note, GIVES_UP)
        for until in (10, UNREADABLE - 1, UNREADABLE + 1, 10**12 + 5):
            assert [number for number, _ in (await read(piece, 0, until))[0]] == list(range(1, 11))
        assert [number for number, _ in (await read(piece, 0, UNREADABLE))[0]] == [1, 2, 3, 4, UNREADABLE]
        # A range is read again as it was read: nothing is given up that was not.
        with pytest.raises(Unreadable):
            await read(ObjectPiece(objects, item, GZIP, note, GIVES_UP), 0, 10**12 + 5)

    asyncio.run(main())
