"""The committer, the log and recovery over a store in memory."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from stream import events
from stream.clock import SystemClock
from stream.commit.committer import Committer, Head, RenderedUnit, checkpoint_of, head_after
from stream.commit.log import CommitLog, Entry
from stream.commit.lookup import shards_of
from stream.commit.manifest import Kind, digest, encode
from stream.commit.naming import manifest_key
from stream.commit.places import Places
from stream.commit.recovery import recover
from stream.commit.rewind import history, rewind_link
from stream.contracts import Checkpoint, OutputFile, Shard, Start, StartKind
from stream.errors import DefinitionError, Fatal, Halted, Retryable, Superseded
from stream.lease.checkpoints import StoredCheckpoints
from stream.storage.memory import MemoryStore
from stream.worker.shards.gap import gap_instead_of
from tests.sealed import NOON, StillClock
from tests.unit.commit.manifests import SHARD, file, intent, unit

START = Start(StartKind.TRIM_HORIZON)


class Denied(MemoryStore):
    """A store that denies the worker everything."""

    def __init__(self, url):
        super().__init__(url=url)

    async def get(self, key):
        raise Fatal("denied")


class Overtaken:
    """A store in which another worker writes just before the first write."""

    def __init__(self, store, other):
        self.url, self.store, self.other = store.url, store, other

    async def put(self, key, body):
        if self.other is not None:
            other, self.other = self.other, None
            await other()
        await self.store.put(key, body)


class Refusing(MemoryStore):
    """Its conditional writes of units get ``answers`` first: an error, or None for a refusal. ``puts``: the keys that were written."""

    def __init__(self, answers=(), url="memory:"):
        super().__init__(url=url)
        self.answers, self.puts = list(answers), []

    async def create(self, key, body):
        return await (super().create(key, body) if "genesis" in key else self._answer(super().create(key, body)))

    async def replace(self, key, body, etag):
        return await self._answer(super().replace(key, body, etag))

    async def put(self, key, body):
        self.puts.append(key)
        await super().put(key, body)

    async def _answer(self, write):
        answer = self.answers.pop(0) if self.answers else "as it should"
        if answer == "as it should":
            return await write
        write.close()
        if answer is not None:
            raise answer
        return None


class Sleepless(SystemClock):
    """Sleeps take no time. ``slept``: the seconds of each."""

    def __init__(self):
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)


class Setting:
    """A committer over stores in memory. ``before``: where the sink was when the unit of ``begun`` was begun."""

    def __init__(self, sinks=("s3",), open_place=None):
        self.state, self.lake, self.emitted = MemoryStore(), MemoryStore(url="memory:lake"), []
        self.before, self.sinks = MemoryStore(url="memory:before"), dict.fromkeys(sinks, self.lake)
        self.open_place = open_place or (lambda url: {self.before.url: self.before}[url])
        self.join(self)

    def join(self, other):
        """Work on the log of ``other``."""
        self.state = other.state
        self.checkpoints = StoredCheckpoints(self.state)
        self.log = CommitLog(self.state, "app", SystemClock(), "me")
        places = Places({**self.sinks, "ledger": MemoryStore()}, self.open_place)
        self.committer = Committer(self.log, places, self.checkpoints, SystemClock(), self.emitted.append, "me")

    async def keys(self, store=None):
        return [info.key async for info in (store or self.lake).list("")]

    async def begun(self, *files, at="memory:before"):
        """A unit of which a worker with another definition wrote only the intent, with the sink ``at`` another URL."""
        genesis = await self.log.open_chain(SHARD, START)
        left = unit(*files, previous=digest(genesis.body), targets={"s3": at} if at else {})
        await self.log.create(SHARD, left.manifest)
        return left

    async def recover(self, render):
        genesis = await self.log.open_chain(SHARD, START)
        return await recover(self.committer, SHARD, genesis, render)

    async def chain(self, *bounds):
        """Commit units that end at ``bounds``; returns the head."""
        previous, after = digest((await self.log.open_chain(SHARD, START)).body), 0
        for last in bounds:
            entry = await self.committer.commit(SHARD, unit(file(f"f{last}"), after=after, last=last, previous=previous), never)
            previous, after = digest(entry.body), last
        return Head(after, previous)


async def never(manifest):
    raise AssertionError(f"nothing should be rendered again: {manifest}")


def rendering(made):
    async def render(manifest):
        fields = {"previous": manifest.previous, "after": manifest.after, "last": manifest.last}
        return RenderedUnit(msgspec.structs.replace(made.manifest, **fields), made.files)

    return render


def run(test):
    asyncio.run(test())


def place(head):
    return head.position, head.previous, head.ended


def test_a_unit_is_written_sealed_and_then_checkpointed():
    async def test():
        b = Setting()
        head = await b.chain(10)
        assert head.position == 10
        kinds = [type(event) for event in b.emitted]
        assert kinds == [events.IntentCreated, events.FileWritten, events.ManifestSealed, events.Checkpointed]
        assert b.committer.sealed == 1
        assert await b.checkpoints.read(SHARD) == Checkpoint(10, 0, 0)
        assert (await b.log.read(SHARD, 0)).manifest.sealed

    run(test)


@pytest.mark.parametrize("answer", [Retryable("503 SlowDown"), None])
@pytest.mark.parametrize("before", [[], ["as it should"]], ids=["intent", "seal"])
def test_a_manifest_that_is_not_accepted_is_written_again_ever_later_and_the_files_are_not(answer, before):
    """Every request makes an overloaded store slower, and there is one committer per shard."""

    async def test():
        b = Setting()
        clock, state, lake = Sleepless(), Refusing([*before, *[answer] * 10]), Refusing(url="memory:lake")
        log, places = CommitLog(state, "app", clock, "me"), Places({"s3": lake, "ledger": lake}, b.open_place)
        committer = Committer(log, places, StoredCheckpoints(MemoryStore()), clock, b.emitted.append, "me")
        genesis = await log.open_chain(SHARD, START)
        entry = await committer.commit(SHARD, unit(file("f"), previous=digest(genesis.body)), never)
        assert entry.manifest.sealed
        assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0, 20.0]
        assert len(lake.puts) == 1
        waits = [event for event in b.emitted if isinstance(event, events.CallRepeated)]
        assert {event.call for event in waits} == ({"seal"} if before else {"create intent"})
        assert all(("another worker had been faster, but the manifest" in event.detail) == (answer is None) for event in waits)

    run(test)


def test_once_the_intent_is_accepted_the_waits_for_the_seal_begin_anew():
    async def test():
        b = Setting()
        slow = Retryable("503 SlowDown")
        clock, state = Sleepless(), Refusing([slow, slow, slow, "as it should", slow, slow])
        log, places = CommitLog(state, "app", clock, "me"), Places({"s3": b.lake, "ledger": b.lake}, b.open_place)
        committer = Committer(log, places, b.checkpoints, clock, b.emitted.append, "me")
        genesis = await log.open_chain(SHARD, START)
        await committer.commit(SHARD, unit(file("f"), previous=digest(genesis.body)), never)
        assert clock.slept == [0.2, 0.4, 0.8, 0.2, 0.4]

    run(test)


class Silent(MemoryStore):
    """The reply to the first creation of a unit is lost."""

    lost = False

    async def create(self, key, body):
        tag = await super().create(key, body)
        if "genesis" not in key and not self.lost:
            self.lost = True
            msg = "no reply"
            raise Retryable(msg)
        return tag


def test_a_link_without_files_whose_creation_was_not_answered_is_sealed_and_removes_what_it_takes_back():
    async def test():
        b = Setting()
        head = await b.chain(10)
        silent, clock = Silent(), Sleepless()
        for key in [info.key async for info in b.state.list("")]:
            await silent.put(key, (await b.state.get(key)).body)
        log = CommitLog(silent, "app", clock, "operator")
        committer = Committer(log, Places({"s3": b.lake}, b.open_place), StoredCheckpoints(silent), clock, b.emitted.append, "operator")
        link = rewind_link(log, await history(log, SHARD), head, 0, "", "")
        entry = await committer.commit(SHARD, RenderedUnit(link, ()), never)
        assert silent.lost
        assert entry.manifest.sealed
        assert await b.keys() == []

    run(test)


def test_a_worker_that_is_overtaken_does_not_wait():
    async def test():
        b = Setting()
        clock = Sleepless()
        log, places = CommitLog(b.state, "app", clock, "me"), Places({"s3": b.lake, "ledger": b.lake}, b.open_place)
        committer = Committer(log, places, b.checkpoints, clock, b.emitted.append, "me")
        genesis = await log.open_chain(SHARD, START)
        await b.chain(10)
        entry = await committer.commit(SHARD, unit(file("f10"), last=10, previous=digest(genesis.body)), never)
        assert entry.manifest.sealed
        assert clock.slept == []

    run(test)


def test_recovery_continues_from_the_checkpoint_if_the_log_agrees():
    async def test():
        b = Setting()
        head = await b.chain(10, 20, 30)
        assert place(await b.recover(never)) == place(head)
        assert b.emitted[-1].units_followed == 0
        await b.checkpoints.advance(SHARD, Checkpoint(15, 0, 10))
        assert place(await b.recover(never)) == place(head)
        assert b.emitted[-1].units_followed == 1
        assert await b.checkpoints.read(SHARD) == Checkpoint(30, 0, 20)

    run(test)


def test_recovery_knows_until_when_everything_was_committed_that_had_arrived():
    async def test():
        b = Setting()
        await b.chain(10)
        noted = await b.committer.note_tip(SHARD, await b.recover(never), NOON)
        assert noted.complete_until == NOON
        assert (await b.recover(never)).complete_until == NOON
        await b.checkpoints.advance(SHARD, Checkpoint(10, 0, 0))
        assert (await b.recover(never)).complete_until is None

    run(test)


def test_without_a_checkpoint_a_long_chain_is_entered_near_its_end():
    async def test():
        b = Setting()
        head = await b.chain(*range(10, 3010, 10))
        left = unit(file("left"), after=3000, last=3010, previous=head.previous)
        for newest in (3000, 3010):
            if newest > head.position:
                await b.log.create(SHARD, left.manifest)
            await b.state.delete("checkpoints/events/shardId-1.json")
            assert (await b.recover(rendering(left))).position == newest
            assert b.emitted[-1].units_followed == 1
            assert await b.checkpoints.read(SHARD) == Checkpoint(newest, 0, newest - 10)

    run(test)


@pytest.mark.parametrize("links", [99, 100, 101, 102, 103, 1200])
def test_from_a_checkpoint_that_lags_far_behind_recovery_goes_to_the_end_of_the_chain_in_a_few_steps(links):
    async def test():
        b = Setting()
        head = await b.chain(*range(10, 10 * links + 30, 10))
        left = unit(file("left"), after=head.position, last=head.position + 10, previous=head.previous)
        await b.log.create(SHARD, left.manifest)
        await b.checkpoints.advance(SHARD, Checkpoint(20, 0, 10))
        assert (await b.recover(rendering(left))).position == head.position + 10
        assert b.emitted[-1].units_followed <= 102
        assert await b.checkpoints.read(SHARD) == Checkpoint(head.position + 10, 0, head.position)

    run(test)


@pytest.mark.parametrize("lost", [0, 10, 20])
def test_a_missing_manifest_halts_the_shard_even_without_a_checkpoint(lost):
    async def test():
        b = Setting()
        await b.chain(*range(10, lost + 30, 10))
        await b.state.delete("checkpoints/events/shardId-1.json")
        await b.state.delete(manifest_key("events", SHARD.chain, lost))
        with pytest.raises(Halted, match=f"is broken after {lost}: .* missing, the next one begins after {lost + 10}"):
            await b.recover(never)

    run(test)


def test_recovery_seals_an_intent_whose_files_are_in_place():
    async def test():
        b = Setting()
        head = await b.chain(10)
        left = unit(file("left"), after=10, last=20, previous=head.previous)
        await b.log.create(SHARD, left.manifest)
        for each in left.files:
            await b.lake.put(each.key, each.body)
        assert (await b.recover(never)).position == 20

    run(test)


def test_an_intent_is_completed_even_if_the_checkpoint_is_at_its_end():
    """As after somebody has restored an earlier version of the manifest."""

    async def test():
        b = Setting()
        head = await b.chain(10)
        left = unit(file("left"), after=10, last=20, previous=head.previous)
        await b.log.create(SHARD, left.manifest)
        await b.checkpoints.advance(SHARD, Checkpoint(20, 0, 10))
        assert (await b.recover(rendering(left))).position == 20
        assert (await b.log.read(SHARD, 10)).manifest.sealed
        assert left.files[0].key in await b.keys()

    run(test)


def test_the_checkpoint_of_a_generation_that_was_rewound_does_not_hold_up_the_next_one():
    """A worker that has stalled may store it after the rewind."""

    async def test():
        b = Setting()
        head = await b.chain(10, 20)
        late = await b.checkpoints.read(SHARD)
        link = rewind_link(b.log, await history(b.log, SHARD), head, 10, "", "")
        rewound = await b.committer.commit(SHARD, RenderedUnit(link, ()), never)
        following = replace(SHARD, generation=1)
        genesis = await b.log.open_chain(following, START, 10, digest(rewound.body))
        assert genesis.manifest.previous == digest(rewound.body)
        await b.checkpoints.advance(SHARD, late)
        assert place(await recover(b.committer, following, genesis, never)) == (10, digest(genesis.body), False)

    run(test)


def test_recovery_replaces_files_it_cannot_reproduce_and_removes_the_old_ones():
    async def test():
        b = Setting()
        head = await b.chain(10)
        kept, lost, new = file("kept"), file("lost", b"lost"), file("new")
        await b.log.create(SHARD, unit(kept, lost, after=10, last=20, previous=head.previous).manifest)
        await b.lake.put(kept.key, kept.body)
        assert (await b.recover(rendering(unit(new)))).position == 20
        assert sorted(await b.keys()) == sorted([file("f10").key, new.key])
        assert events.IntentAmended("events", "shardId-1", 10, 20, 2) in b.emitted
        assert any(isinstance(event, events.LeftoversRemoved) and event.files == 2 for event in b.emitted)

    run(test)


def test_an_edited_manifest_halts_the_shard():
    async def test():
        b = Setting()
        await b.chain(10, 20)
        entry = await b.log.read(SHARD, 0)
        await b.log.replace(SHARD, entry.body.replace(b'"me"', b'"you"'), 0, entry.etag)
        await b.checkpoints.advance(SHARD, Checkpoint(1, 0, 5))
        with pytest.raises(Halted, match="was edited or restored by hand"):
            await b.recover(never)

    run(test)


def test_a_checkpoint_beyond_the_log_halts_the_shard():
    async def test():
        b = Setting()
        await b.chain(10)
        await b.checkpoints.advance(SHARD, Checkpoint(99, 0, 50))
        with pytest.raises(Halted, match="beyond the end of the commit log at 10"):
            await b.recover(never)

    run(test)


def test_a_log_without_the_shard_that_the_checkpoint_knows_halts_it_and_names_the_log():
    """As after a rollout with another ``application`` or ``state`` over the same lease table."""

    async def test():
        b = Setting()
        await b.checkpoints.advance(SHARD, Checkpoint(99, 0, 50))
        with pytest.raises(
            Halted,
            match=r"has nothing of that shard\. .*go back to the previous file.* another pipeline keeps its leases in the same table",
        ):
            await b.recover(never)

    run(test)


def test_the_end_of_a_shard_is_written_once_and_found_again():
    async def test():
        b = Setting()
        head = await b.chain(10)
        ended = await b.committer.end(SHARD, head, ("b", "a"))
        assert (ended.ended, ended.children) == (True, ("a", "b"))
        assert await b.checkpoints.read(SHARD) == Checkpoint(None, 0, 10)
        assert await b.committer.end(SHARD, head, ("b", "a")) == ended
        assert await b.recover(never) == ended
        assert [event.last for event in b.emitted if isinstance(event, events.ManifestSealed)] == [10, None]

    run(test)


def test_an_end_in_the_middle_of_the_log_halts_the_shard():
    async def test():
        b = Setting()
        await b.chain(10, 20)
        genesis = await b.log.open_chain(SHARD, START)
        with pytest.raises(Halted, match="the commit log continues from there"):
            await b.committer.end(SHARD, Head(0, digest(genesis.body)), ("a",))

    run(test)


def test_an_end_where_an_operator_has_rewound_the_shard_gives_way():
    async def test():
        b = Setting()
        head = await b.chain(10)
        link = rewind_link(b.log, await history(b.log, SHARD), head, 0, "", "")
        await b.committer.commit(SHARD, RenderedUnit(link, ()), never)
        with pytest.raises(Superseded):
            await b.committer.end(SHARD, head, ("a",))

    run(test)


def test_a_unit_for_a_missing_sink_whose_place_was_not_recorded_halts_the_shard():
    async def test():
        b = Setting(sinks=("other",))
        await b.begun(file("x"), at="")
        with pytest.raises(Halted, match=r"sink `s3`.*does not say where that sink was"):
            await b.recover(never)

    run(test)


def test_a_start_position_is_pinned_once():
    async def test():
        b = Setting()
        pinned = await b.log.pin_start("events", Start(StartKind.LATEST))
        assert pinned.kind is StartKind.AT_TIMESTAMP
        assert await b.log.pin_start("events", START) == pinned
        genesis = await b.log.open_chain(SHARD, pinned)
        assert (await b.log.open_chain(SHARD, START)).body == genesis.body
        assert genesis.manifest.kind is Kind.GENESIS
        child = await b.log.open_chain(Shard("events", "shardId-2", (SHARD.shard_id,)), START)
        assert child.manifest.parents == (SHARD.shard_id,)
        assert [shard async for shard in shards_of(b.state, "events")] == ["shardId-1", "shardId-2"]

    run(test)


class SetBack(StoredCheckpoints):
    """Somebody has set back what other applications read, until the checkpoint is stored again."""

    what = "TRIM_HORIZON"

    async def read(self, shard):
        stored = await super().read(shard)
        return None if stored is None else replace(stored, set_back=self.what)

    async def advance(self, shard, checkpoint):
        await super().advance(shard, checkpoint)
        self.what = ""


@pytest.mark.parametrize("ended", [False, True])
def test_a_checkpoint_that_was_set_back_is_restored_by_the_next_worker_and_told_once(ended):
    async def test():
        b = Setting()
        head = await b.chain(10, 20)
        if ended:
            head = await b.committer.end(SHARD, head, ("a",))
        b.committer.checkpoints = SetBack(b.state)
        for _ in range(2):
            assert (await b.recover(never)).position == head.position
        assert b.committer.checkpoints.what == ""
        told = [event for event in b.emitted if isinstance(event, events.CheckpointSetBack)]
        assert [(event.checkpoint, event.position) for event in told] == [("TRIM_HORIZON", None if ended else 20)]

    run(test)


class Behind(MemoryStore):
    """A store in which ``other`` happens right after a worker has found that something is missing."""

    other = None

    async def get(self, key):
        found = await super().get(key)
        if found is None and self.other is not None:
            other, self.other = self.other, None
            await other()
        return found


def test_two_workers_that_begin_at_once_agree_on_where_to_begin():
    async def test():
        store, latest = Behind(url="memory:"), Start(StartKind.LATEST)
        one, two = (CommitLog(store, "app", StillClock(NOON + timedelta(seconds=n)), f"worker-{n}") for n in (1, 2))
        for begin in (lambda log: log.pin_start("events", latest), lambda log: log.open_chain(SHARD, START)):
            first = []

            async def other(begin=begin, first=first):
                first.append(await begin(two))

            store.other = other
            assert [await begin(one)] == first
            assert [await begin(one)] == first

    run(test)


def test_the_chain_lists_every_unit_in_order():
    async def test():
        b = Setting()
        await b.chain(10, 20, 30)
        assert [entry.manifest.span.last async for entry in b.log.chain("events", "shardId-1")] == [10, 20, 30]

    run(test)


@pytest.mark.parametrize("sinks", [("s3",), ("other",)])
def test_an_unfinished_unit_is_finished_where_its_sink_was_when_it_was_begun(sinks):
    """The sink was moved; it was renamed, too, or removed."""

    async def test():
        b = Setting(sinks)
        left = await b.begun(file("kept"), file("lost", b"lost"))
        await b.before.put(left.files[0].key, left.files[0].body)
        assert (await b.recover(rendering(left))).position == 10
        assert sorted(await b.keys(b.before)) == sorted(entry.key for entry in left.files)
        assert await b.keys() == []
        manifest = (await b.log.read(SHARD, 0)).manifest
        assert manifest.sealed
        assert manifest.targets == {"s3": b.before.url}

    run(test)


def test_a_renamed_sink_in_the_same_place_is_not_opened_again():
    async def test():
        b = Setting(("other",), open_place=Denied)
        left = await b.begun(file("x"), at=b.lake.url)
        await b.recover(rendering(left))
        assert await b.keys() == [left.files[0].key]

    run(test)


def test_files_that_cannot_be_reproduced_are_replaced_and_removed_at_the_old_place():
    async def test():
        b = Setting()
        left, new = await b.begun(file("old")), file("new")
        await b.before.put("old-of-nobody", b"")
        await b.before.put(left.files[0].key, b"half")
        assert (await b.recover(rendering(unit(new)))).position == 10
        assert sorted(await b.keys(b.before)) == sorted([new.key, "old-of-nobody"])
        assert await b.keys() == []

    run(test)


def test_a_gap_in_place_of_a_unit_removes_its_files_at_the_old_place():
    async def test():
        b = Setting()
        left = await b.begun(file("there"), file("lost", b"lost"))
        await b.before.put(left.files[0].key, left.files[0].body)

        async def gap(intent):
            return RenderedUnit(gap_instead_of(intent), ())

        assert (await b.recover(gap)).position == 10
        assert await b.keys(b.before) == []
        assert (await b.log.read(SHARD, 0)).manifest.targets == {"s3": b.before.url}

    run(test)


def test_a_sink_that_first_gets_a_file_from_another_build_is_where_its_definition_says():
    async def test():
        b = Setting()
        await b.begun(OutputFile("ledger", "lost", b"", 1, "0" * 64), at="")
        new = unit(file("new"))
        made = RenderedUnit(msgspec.structs.replace(new.manifest, targets={"s3": b.before.url}), new.files)

        async def again(intent):
            return RenderedUnit(msgspec.structs.replace(made.manifest, previous=intent.previous), made.files)

        assert (await b.recover(again)).position == 10
        assert await b.keys(b.before) == [new.files[0].key]
        assert await b.keys() == []

    run(test)


def test_a_waking_worker_of_the_old_definition_changes_nothing_at_either_place():
    """It has begun the unit, and continues only after another worker, whose sink is elsewhere, has finished it."""

    async def test():
        old, new = Setting(), Setting()
        new.lake, new.before = MemoryStore(url="memory:sea"), old.lake
        new.sinks, new.open_place = {"s3": new.lake}, {old.lake.url: old.lake}.__getitem__
        new.join(old)
        mine = unit(file("mine"), previous=digest((await old.log.open_chain(SHARD, START)).body))
        old.sinks = {"s3": Overtaken(old.lake, lambda: new.recover(rendering(mine)))}
        old.join(old)
        entry = await old.committer.commit(SHARD, mine, never)
        assert entry.manifest.sealed
        assert [type(event) for event in new.emitted].count(events.ManifestSealed) == 1
        assert [type(event) for event in old.emitted].count(events.ManifestSealed) == 0
        assert await old.keys() == [mine.files[0].key]
        assert await new.keys() == []

    run(test)


def test_a_rewind_records_where_the_removed_files_were():
    async def test():
        b = Setting()
        head = await b.chain(10)
        known = await history(b.log, SHARD)
        link = rewind_link(b.log, known, head, 0, "", "")
        entry = await b.committer.commit(SHARD, RenderedUnit(link, ()), never)
        assert entry.manifest.targets == {"s3": b.lake.url}
        assert await b.keys() == []
        assert await b.checkpoints.read(SHARD) == Checkpoint(0, 0, 0, generation=1), "where the next generation begins"

    run(test)


def test_a_former_place_that_nothing_can_open_halts_the_shard_with_a_remedy():
    def unknown(url):
        msg = f"no store is known for {url}"
        raise DefinitionError(msg)

    async def test():
        b = Setting(open_place=unknown)
        left = await b.begun(file("x"))
        with pytest.raises(Halted, match=r"sink `s3` at memory:before.*no store is known for.*nothing is read"):
            await b.recover(rendering(left))

    run(test)


def test_an_unusable_former_place_halts_the_shard_with_a_remedy():
    async def test():
        b = Setting(open_place=Denied)
        left = await b.begun(file("x"))
        with pytest.raises(Halted, match=r"sink `s3` at memory:before.*read file there: denied.*`stream iam`.*nothing is read"):
            await b.recover(rendering(left))
        assert not (await b.log.read(SHARD, 0)).manifest.sealed

    run(test)


def test_an_unusable_place_of_the_current_pipeline_ends_the_worker():
    async def test():
        b = Setting()
        b.sinks = {"s3": Denied("memory:lake")}
        b.join(b)
        with pytest.raises(Fatal, match="denied"):
            await b.recover(rendering(await b.begun(file("x"), at="memory:lake")))

    run(test)


def test_a_sealed_manifest_records_where_its_files_are():
    async def test():
        b = Setting()
        await b.chain(10)
        manifest = (await b.log.read(SHARD, 0)).manifest
        assert set(manifest.targets) == {entry.sink for entry in manifest.files}
        assert manifest.targets[manifest.files[0].sink] == b.lake.url

    run(test)


def test_recovery_stores_the_checkpoint_of_an_end_if_it_was_lost():
    """Under leases, child shards start only once the checkpoint says that this shard has ended."""

    async def test():
        b = Setting()
        head = await b.chain(10)
        before = await b.checkpoints.read(SHARD)
        await b.committer.end(SHARD, head, ("shardId-000000000007",))
        await b.checkpoints.advance(SHARD, before)
        assert (await b.recover(never)).ended
        stored = await b.checkpoints.read(SHARD)
        assert stored is not None
        assert stored.position is None

    run(test)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.GENESIS])
def test_only_a_unit_says_until_when_everything_is_committed_and_that_a_record_is_at_the_checkpoint(kind):
    """What arrived after the unit's last record may not be committed, although it arrived before the unit was written."""
    facts = {"first_arrival": "2026-01-01T00:00:01+00:00", "last_arrival": "2026-01-01T00:00:02+00:00"}
    link = msgspec.structs.replace(
        intent(created_at="2026-01-01T00:00:09+00:00", sealed_at="2026-01-01T00:00:09+00:00", **(facts if kind is Kind.UNIT else {})),
        kind=kind,
        last=None if kind in {Kind.END, Kind.REWIND} else "10",
        target="5" if kind is Kind.REWIND else None,
    )
    head = head_after(Entry(link, encode(link), "tag"))
    assert head.complete_until == (datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC) if kind is Kind.UNIT else None)
    assert head.checkpoint == checkpoint_of(link)
    if kind is not Kind.REWIND:
        assert checkpoint_of(link).record == (kind in {Kind.UNIT, Kind.END})
