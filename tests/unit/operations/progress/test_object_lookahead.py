"""What waits in each shard, compared with a walk over all claims."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from stream.audit.completeness import Found
from stream.clock import SystemClock
from stream.contracts import Shard, Start, StartKind
from stream.operations.progress.backlog import Backlog
from stream.operations.progress.object_lookahead import open_lookahead
from stream.source.bounded import sequence_of
from stream.source.growing import first_unfinished, growing_shard
from stream.source.objects import PinnedObject
from stream.source.unreadable import UNREADABLE
from stream.storage.memory import MemoryStore
from stream.worker.objects.claimlog import ClaimLog
from stream.worker.objects.slice import Slice
from stream.worker.opening.places import session_of
from tests.replays import Place

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEGIN = Start(StartKind.TRIM_HORIZON)


def made(key: str, dice: Random) -> PinnedObject:
    return PinnedObject(key, dice.randrange(1, 9), "v", (NOON + timedelta(seconds=dice.randrange(9**5))).isoformat())


@pytest.mark.parametrize("seed", range(20))
def test_the_backlog_of_a_shard_is_what_was_appended_after_its_position(tmp_path, seed):
    dice, shards = Random(seed), 3
    appended: list[list[PinnedObject]] = [[] for _ in range(shards)]

    async def main():
        state = MemoryStore()
        pipeline = Place(tmp_path, {"s3": f", shards: {shards}, watch: {{}}"}).pipeline()
        url = f"file:{tmp_path}/in"
        log = ClaimLog(state, "archive", url)
        for number in range(dice.randrange(1, 70)):
            before = [len(each) for each in appended]
            parts = [[made(f"{number}-{shard}-{at}", dice) for at in range(dice.randrange(3))] for shard in range(shards)]
            for each, part in zip(appended, parts, strict=True):
                each.extend(part)
            bounds = tuple((begin, begin + len(part)) for begin, part in zip(before, parts, strict=True))
            objects = tuple(item for part in parts for item in part)
            claim = Slice(objects, "w", f"2026-01-01T00:{number:02}:00", url=url, appended=bounds)
            await log.append(lambda claim=claim: claim)
        lookahead = open_lookahead(pipeline, tmp_path, state, session_of(pipeline), SystemClock(), lists=False)
        written = sorted([info.key async for info in state.list("")])
        assert [shard.shard_id for shard in await lookahead.shards()] == [growing_shard(number) for number in (1, 2, 3)]
        for _ in range(30):
            shard = dice.randrange(shards)
            piece = dice.randrange(1, len(appended[shard]) + 3)
            number = dice.choice([0, 1, 17, UNREADABLE])
            rest = appended[shard][piece - 1 + (number >= UNREADABLE) :]
            found = await lookahead.after(Shard("archive", growing_shard(shard + 1)), sequence_of(piece, number), BEGIN, None, NOON)
            oldest = min((datetime.fromisoformat(item.modified) for item in rest), default=None)
            assert (found.found, found.arrived) == ((Found.RECORD, oldest) if rest else (Found.TIP, None)), f"seed {seed}"
            assert lookahead.backlogs[growing_shard(shard + 1)] == Backlog(len(rest), sum(item.size for item in rest), oldest)
        assert sorted([info.key async for info in state.list("")]) == written

    asyncio.run(main())


def test_the_first_unfinished_object_follows_from_the_position():
    assert first_unfinished(0) == 1
    assert first_unfinished(sequence_of(1, 5)) == 1
    assert first_unfinished(sequence_of(1, UNREADABLE)) == 2
    assert first_unfinished(sequence_of(2, 0)) == 2
