"""Objects of a watched source whose content cannot be read: what can be read is written, the rest waits as a dead letter."""

import asyncio
import gzip
import io
import json

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from stream.batch import DATA
from stream.cli.main import app
from stream.errors import Retryable
from stream.source.object_formats import Layout, ObjectFormat, Unreadable
from stream.source.objects import ObjectPiece, PinnedObject
from stream.source.unreadable import UNREADABLE, UnreadPart, note_of
from stream.storage.memory import MemoryStore
from stream.storage.open import open_store
from stream.worker.sources.dead_letters import CLAIMED, STATE, WAITING
from stream.worker.sources.reading import Reading
from tests.integration.test_replay import place, truth, written  # noqa: F401 - the fixture

WATCHED = ", shards: 2, watch: {}"


def cut_off(body):
    """A gzip file without its end: a part of it can still be read."""
    packed = gzip.compress(body, compresslevel=0)
    return packed[: len(packed) * 2 // 3]


def once(place, **changes):  # noqa: F811 - the fixture
    return place.run(Reading(once=True), s3=changes.pop("s3", WATCHED), **changes)


@pytest.mark.parametrize("rows", [500, 7])
def test_what_cannot_be_read_of_an_object_is_one_dead_letter_and_everything_else_is_written(place, rows):  # noqa: F811
    place.settings = {"s3": WATCHED, "rows": rows}
    place.lines("a.json", range(100))
    # Far more than is decompressed at a time, so that some of it can be read.
    place.lines("b.json.gz", range(100, 60_000), pack=cut_off)
    place.lines("c.json", range(60_000, 60_100))
    place.lines("d.json.gz", range(1), pack=lambda _: b"\x1f\x8b is no gzip")
    heard = []
    end = once(place, listeners=(heard.append,))
    assert end.code == 0
    letters = place.table()
    assert letters.select("stage", "reason", "cause", STATE).unique().rows() == [("source", "object_unreadable", "source", WAITING)]
    parts = {part["key"]: part for part in map(json.loads, letters[DATA])}
    assert parts.keys() == {"b.json.gz", "d.json.gz"}
    assert parts["d.json.gz"]["after"] == 0
    assert "cannot be read as ndjson, compression gzip" in parts["d.json.gz"]["why"]
    read = parts["b.json.gz"]["after"]
    assert 1000 < read < 50_000
    assert {int(sequence) % 10**12 for sequence in letters["_sequence"]} == {UNREADABLE}
    assert written(place).equals(truth([*range(100), *range(100, 100 + read), *range(60_000, 60_100)]))
    assert place.proof() == []
    assert [event.why for event in heard if type(event).__name__ == "ObjectRefused"] == ["content", "content"]
    # Nothing is read twice, whether the units are large or small.
    assert once(place).code == 0
    assert place.table().height == 2
    assert place.proof() == []


def test_a_redrive_reads_it_again_as_the_pipeline_says_now_and_no_record_is_there_twice(place):  # noqa: F811
    wrong, right = {"s3": f"{WATCHED}, compression: gzip"}, {"s3": f"{WATCHED}, compression: none"}
    place.lines("a.json", range(700))
    place.lines("b.json", range(700, 1300))
    assert once(place, **wrong).code == 0
    assert place.rows().is_empty()
    claimed, end = place.redrive(**wrong)
    assert (claimed[1], end.code) == (2, 0)
    # It still cannot be read, so it waits again.
    again = place.table(**wrong)
    assert sorted(again.select("_attempt", STATE).rows()) == [(1, CLAIMED), (1, CLAIMED), (2, WAITING), (2, WAITING)]
    assert place.proof(**wrong) == []
    claimed, end = place.redrive(**right)
    assert (claimed[1], end.code) == (2, 0)
    assert written(place).equals(truth(range(1300)))
    rows = place.rows()
    assert rows.select("_shard", "_sequence").is_duplicated().sum() == 0
    # The lineage that the records would have got at once.
    assert set(rows["_shard"]) == {"watch-0001", "watch-0002"}
    assert sorted({int(each) % 10**12 for each in rows["_sequence"]}) == list(range(1, 701))
    assert place.proof(**right) == []
    assert place.table(**right).filter(pl.col(STATE) == WAITING).height == 0
    assert place.redrive(**right)[0] is None
    # Where such a row comes from: the object that could not be read twice, and then its record.
    row = rows.row(5, named=True)
    traced = CliRunner().invoke(app, ["trace", str(place.file(**right)), f"{row['_shard']}:{row['_sequence']}", "--json"])
    assert traced.exit_code == 0, traced.output
    reported = json.loads(traced.output)
    assert [each["outcome"] for each in reported] == ["dead_lettered", "dead_lettered", "written"]
    assert reported[2]["first_read"].startswith(f"{row['_shard']}:{row['_sequence']}")
    nothing = CliRunner().invoke(app, ["trace", str(place.file(**right)), "watch-0001:7000000000003"])
    assert nothing.exit_code == 1


def test_of_an_object_that_was_read_in_part_a_redrive_reads_only_the_rest(place):  # noqa: F811
    place.settings = {"s3": WATCHED}
    place.lines("a.json.gz", range(60_000), pack=cut_off)
    assert once(place).code == 0
    before = written(place).height
    assert before > 0
    (place.folder / "in/a.json.gz").unlink()
    claimed, end = place.redrive()
    assert (claimed[1], end.code) == (1, 0)
    assert written(place).height == before
    letters = place.table()
    assert letters["_attempt"].to_list() == [1, 2]
    assert "was deleted after it was chosen" in json.loads(letters[DATA][1])["why"]
    # The other way out: the whole content under a new key.
    place.lines("a-again.json", range(before, 60_000))
    assert once(place).code == 0
    assert written(place).equals(truth(range(60_000)))


def test_with_halt_the_shard_halts_and_names_the_object(place):  # noqa: F811
    place.lines("d.json.gz", range(1), pack=lambda _: b"\x1f\x8b is no gzip")
    end = once(place, s3=", watch: {on_unreadable: halt}")
    assert end.code != 0
    assert place.table(s3=WATCHED).height == 0
    assert once(place, s3=WATCHED).code == 0
    assert place.table(s3=WATCHED).height == 1


def test_the_letter_is_listed_and_shown(place):  # noqa: F811
    place.settings = {"s3": WATCHED}
    place.lines("d.json.gz", range(1), pack=lambda _: b"\x1f\x8b is no gzip")
    assert once(place).code == 0
    listed = CliRunner().invoke(app, ["dlq", "ls", str(place.file())])
    assert listed.exit_code == 0, listed.output
    assert "object_unreadable" in listed.output


class Flaky(MemoryStore):
    """A store whose reads fail in the middle of an object."""

    async def read_range(self, key, start, end, version):
        if start:
            msg = "no answer"
            raise Retryable(msg)
        return await super().read_range(key, start, end, version)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.zst", "a.parquet"])
def test_what_could_not_be_fetched_is_not_taken_for_unreadable(name):
    async def main():
        store = Flaky()
        body = gzip.compress(b"x" * 10_000_000, compresslevel=0) if name.endswith("gz") else b"x\n" * 5_000_000
        if name.endswith("parquet"):
            file = io.BytesIO()
            pl.DataFrame({"a": range(1_000_000)}).write_parquet(file, compression="uncompressed")
            body = file.getvalue()
        await store.put(name, body)
        info = await store.stat(name)
        item = PinnedObject(name, info.size, info.version, info.modified.isoformat())
        piece = ObjectPiece(
            store,
            item,
            Layout(ObjectFormat.PARQUET if name.endswith("parquet") else ObjectFormat.NDJSON),
            note_of(MemoryStore(), "c", "s", 1),
            (Unreadable,),
        )
        return [block.outcome async for block in piece.blocks(0)]

    if name.endswith("zst"):
        # No zstd at all: it is known from the first bytes, which were fetched.
        assert [outcome.label for outcome in asyncio.run(main())] == ["dead_lettered"]
        return
    with pytest.raises(Retryable, match="no answer"):
        asyncio.run(main())


def test_a_note_by_a_worker_that_had_lost_the_shard_changes_nothing(place):  # noqa: F811
    """It gave up, as its options were, what another worker read to its end at the same time, in a unit that goes on beyond it."""
    place.settings = {"s3": ", shards: 1, watch: {}"}
    for name in "abc":
        place.lines(f"{name}.json", range(ord(name) * 100, ord(name) * 100 + 100))
    assert once(place, s3=", shards: 1, watch: {}").code == 0
    items = {path.name: path.stat() for path in (place.folder / "in").iterdir()}
    state = open_store(f"file:{place.folder}/state/replay")
    for piece, name in ((1, "a.json"), (2, "b.json")):
        part = UnreadPart(name, items[name].st_size, "", "", 4, "cannot be read as gzip")
        asyncio.run(note_of(state, "archive", "watch-0001", piece).write(part))
    assert place.proof() == []
    # Whoever finishes an unfinished unit of it reads the same records.
    (chain,) = (place.folder / "state/replay/commits/archive").iterdir()
    first = min(path for path in chain.iterdir() if path.name.startswith("0"))
    link = json.loads(first.read_bytes())
    for file in link["files"]:
        if file["sink"] == "s3":
            (place.folder / "lake" / file["key"]).unlink()
    intent = {key: value for key, value in link.items() if key not in {"seal", "sealed_at", "sealed_by"}} | {"state": "intent"}
    first.write_bytes(msgspec.json.encode(intent, order="sorted"))
    for later in chain.iterdir():
        if later.name.startswith("0") and later != first:
            later.unlink()
    for hint in (place.folder / "state/replay/checkpoints").rglob("*.json"):
        hint.unlink()
    assert once(place, s3=", shards: 1, watch: {}").code == 0
    assert written(place).equals(truth([n for name in "abc" for n in range(ord(name) * 100, ord(name) * 100 + 100)]))
    assert place.proof() == []
