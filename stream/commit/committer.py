"""Carries out the protocol's instructions on the log, the sinks' stores and the checkpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from stream import events
from stream.commit import protocol
from stream.commit.log import CommitLog, Entry
from stream.commit.manifest import FileEntry, Kind, Manifest, State, digest, encode, with_seal
from stream.commit.naming import sha256_hex
from stream.commit.places import Places
from stream.commit.retry import FIRST_WAIT, Repeater, longer
from stream.concurrency import run_concurrently
from stream.contracts import Checkpoint, Checkpoints, Clock, Emit, ObjectStore, OutputFile, Reached, Shard, shard_of_chain
from stream.errors import DefinitionError, Fatal, Halted, Retryable, Superseded

T = TypeVar("T")

FOREIGN: Final = "foreign"
"""Trigger of links that record another application's progress. That progress may be outdated: our own workers may be further."""

CREATE: Final = "create intent"
"""The name of that call in events."""

CONCURRENT_WRITES: Final = 8
"""Files of one unit that are written at once: S3 answers a PUT in tens of milliseconds, and a unit rarely has more than a few files."""


@dataclass(frozen=True, slots=True)
class RenderedUnit:
    """A unit's intent, with the bytes of every file that it lists."""

    manifest: Manifest
    files: tuple[OutputFile, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Where a shard's sealed chain ends.

    ``position``: the last committed sequence number; ``previous``: digest of the manifest that ends there; ``ended``: the shard has been
    read to its end, and ``children`` continue it. ``checkpoint``: the checkpoint that points here. ``complete_until``: everything that had
    arrived in the shard by then is committed; None if unknown. ``target``: an operator rewound the shard to this position, so it continues
    in the chain of its next generation. ``foreign``: how far another application has processed the shard, if further than the log records.
    ``foreign_subsequence``: of the Kinesis record after ``position``, that application has processed the user records up to this index.
    """

    position: int
    previous: str
    ended: bool = False
    children: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    complete_until: datetime | None = None
    target: int | None = None
    foreign: Reached | None = None
    foreign_subsequence: int = -1

    @property
    def open(self) -> bool:
        """Whether more units may follow in this chain."""
        return not self.ended and self.target is None


def head_after(entry: Entry) -> Head:
    """The head of the chain after the sealed link ``entry``."""
    manifest, link = entry.manifest, digest(entry.body)
    if manifest.kind is Kind.END:
        return Head(int(manifest.after), link, ended=True, children=manifest.children, checkpoint=checkpoint_of(manifest))
    if manifest.target is not None:
        return Head(int(manifest.after), link, checkpoint=checkpoint_of(manifest), target=int(manifest.target))
    complete_until = datetime.fromisoformat(manifest.last_arrival) if manifest.last_arrival else None
    skipped = manifest.foreign_subsequence if manifest.kind is Kind.FOREIGN else -1
    hint = checkpoint_of(manifest)
    return Head(manifest.span.last, link, checkpoint=hint, complete_until=complete_until, foreign_subsequence=skipped)


def checkpoint_of(manifest: Manifest) -> Checkpoint:
    """The checkpoint that points to the end of ``manifest``; for a rewind, to the start of the next generation."""
    generation = shard_of_chain(manifest.shard)[1]
    if manifest.target is not None:
        position = int(manifest.target)
        return Checkpoint(position, manifest.subsequence, position, generation=generation + 1)
    position_or_end = None if manifest.kind is Kind.END else manifest.span.last
    record = manifest.kind in {Kind.UNIT, Kind.END}
    return Checkpoint(position_or_end, manifest.subsequence, int(manifest.after), record=record, generation=generation)


Renderer: TypeAlias = Callable[[Manifest], Awaitable[RenderedUnit]]
"""Re-reads an intent's range and runs the definition it names; raises ``Halted`` if the stream no longer holds the range."""

Concurrently: TypeAlias = Callable[[Sequence[Coroutine[Any, Any, None]]], Awaitable[None]]
"""Runs all calls and returns when they are done. A simulation passes its own implementation, to control their order."""


async def in_task_group(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run ``calls`` concurrently, ``CONCURRENT_WRITES`` at a time. The first error cancels the others and is raised as it is."""
    await run_concurrently(calls, CONCURRENT_WRITES)


class Committer:
    """Commits units of any shard. ``places`` has the object stores of the sinks that manifests name."""

    def __init__(
        self,
        log: CommitLog,
        places: Places,
        checkpoints: Checkpoints,
        clock: Clock,
        emit: Emit,
        worker: str,
        concurrently: Concurrently = in_task_group,
    ) -> None:
        self.log = log
        self._places = places
        self.checkpoints = checkpoints
        self.sealed = 0
        """Links that this committer has sealed: as long as there are none, it is not known whether it may write at all."""
        self.clock = clock
        self.emit = emit
        self._worker = worker
        self._concurrently = concurrently
        self.repeat = Repeater(clock, emit)

    async def commit(self, shard: Shard, unit: RenderedUnit, render: Renderer) -> Entry:
        """Commit ``unit``, or complete the unit that another worker began at the same position. Returns the sealed entry.

        Its manifest may be another worker's: continue from *its* ``last``.
        """
        entry = await self._run(shard, int(unit.manifest.after), unit, render)
        if entry is None:
            msg = "the protocol finished one of our own units without a manifest"
            raise protocol.InvalidTransition(msg)
        await self.checkpoint(shard, checkpoint_of(entry.manifest))
        return entry

    async def complete(self, shard: Shard, after: int, render: Renderer) -> Entry | None:
        """Complete the unit that starts after ``after``, if one was begun. Returns its sealed entry, or None."""
        return await self._run(shard, after, None, render)

    async def end(self, shard: Shard, head: Head, children: tuple[str, ...], trigger: str = "shard_end") -> Head:
        """Record that the shard has been read to its end and that ``children`` continue it. Returns the head after that link.

        Raises:
            Superseded: meanwhile, an operator or another application has moved the chain; recover again.
            Halted: the log contains a unit after the position at which the shard ended.
            LeaseLost: the shard belongs to another worker now.
        """
        manifest = Manifest(
            kind=Kind.END,
            state=State.SEALED,
            application=self.log.application,
            stream=shard.stream,
            shard=shard.chain,
            after=str(head.position),
            previous=head.previous,
            children=tuple(sorted(children)),
            trigger=trigger,
            worker=self._worker,
            created_at=self.clock.now().isoformat(),
        )
        if await self.repeat("create end of shard", shard, lambda: self.log.create(shard, with_seal(manifest))) is not None:
            self.emit(events.ManifestSealed(shard.stream, shard.shard_id, head.position, None))
        entry = await self.repeat("read end of shard", shard, lambda: self.log.read(shard, head.position))
        moved = entry is not None and entry.manifest.kind in {Kind.REWIND, Kind.SKIP, Kind.FOREIGN}
        if moved or (trigger == FOREIGN and entry is not None and entry.manifest.kind is not Kind.END):
            msg = f"{shard.stream}/{shard.shard_id}: the chain was continued at {head.position} by an operator or another application"
            raise Superseded(msg, position=head.position)
        if entry is None or entry.manifest.kind is not Kind.END:
            msg = (
                f"{shard.stream}/{shard.shard_id} has ended at {head.position}, yet the commit log continues from there; "
                "compare the stream with `stream audit verify` before anything else is read"
            )
            raise Halted(msg)
        await self.checkpoint(shard, checkpoint_of(entry.manifest))
        return head_after(entry)

    async def checkpoint(self, shard: Shard, hint: Checkpoint) -> None:
        """Store ``hint``; raises ``LeaseLost`` if the shard belongs to another worker now."""
        await self.repeat("checkpoint", shard, lambda: self.checkpoints.advance(shard, hint))
        self.emit(events.Checkpointed(shard.stream, shard.shard_id, hint.position))

    async def note_tip(self, shard: Shard, head: Head, tip: datetime) -> Head:
        """Record in the checkpoint that everything that had arrived by ``tip`` is committed: this cannot be determined later."""
        if head.checkpoint is None:
            return head
        hint = replace(head.checkpoint, tip=tip)
        await self.repeat("note tip", shard, lambda: self.checkpoints.advance(shard, hint))
        return replace(head, checkpoint=hint, complete_until=tip)

    async def _run(self, shard: Shard, after: int, own: RenderedUnit | None, render: Renderer) -> Entry | None:
        work = _Work(shard, after, render, {FileEntry.of(file): file for file in own.files} if own else {})
        state, instruction = protocol.begin(self._places.own(own.manifest) if own else None)
        while not isinstance(instruction, protocol.Finish):
            state, instruction = protocol.advance(state, await self._carry_out(instruction, work))
        return work.entry if instruction.manifest is not None else None

    async def _carry_out(self, instruction: protocol.Instruction, work: _Work) -> protocol.Event:  # noqa: PLR0911 - a case per kind
        match instruction:
            case protocol.ReadManifest():
                return await self._read_manifest(work)
            case protocol.Create(manifest):
                return await self._create(work, manifest)
            case protocol.Replace(manifest, etag):
                return await self._replace(work, manifest, etag)
            case protocol.Verify(files):
                complete = await self._all_in_place(work, files)
                if complete and work.entry is not None:
                    self._adopted(work, work.entry.manifest, "in_place")
                return protocol.Verified(complete)
            case protocol.Render(manifest):
                self._adopted(work, manifest, "render")
                rendered = await work.render(manifest)
                work.bodies.update({FileEntry.of(file): file for file in rendered.files})
                return protocol.Rendered(self._places.recorded(rendered.manifest, manifest.targets))
            case protocol.Write(files):
                await self._concurrently([self._write(work, work.bodies[entry]) for entry in files])
                return protocol.Written()
            case protocol.Delete(files):
                await self._concurrently([self._delete(work, entry) for entry in files])
                self.emit(events.LeftoversRemoved(work.shard.stream, work.shard.shard_id, len(files)))
                return protocol.Deleted()
            case protocol.Finish():
                msg = "Finish is not carried out"
                raise protocol.InvalidTransition(msg)

    def _adopted(self, work: _Work, manifest: Manifest, how: str) -> None:
        self.emit(events.IntentAdopted(work.shard.stream, work.shard.shard_id, work.after, manifest.reach, how))

    async def _read_manifest(self, work: _Work) -> protocol.Event:
        refused, work.refused = work.refused, None
        entry = await self.repeat("read manifest", work.shard, lambda: self.log.read(work.shard, work.after))
        if refused is not None and refused.etag == (entry.etag if entry is not None else ""):
            # Else the store would be asked again at once, and for as long as it answers like that.
            await self._pause(work, refused.call, Retryable(refused.contradiction(self.log.store.url)))
        if entry is None:
            return protocol.Absent()
        work.entry = entry
        work.targets |= entry.manifest.targets
        return protocol.Found(entry.manifest, entry.etag)

    async def _create(self, work: _Work, manifest: Manifest) -> protocol.Event:
        try:
            etag = await self.log.create(work.shard, manifest)
        except Retryable as error:
            return await self._unknown(work, CREATE, error)
        if etag is None:
            work.refused = _Refusal(CREATE, "")
            return protocol.Refused()
        work.wait = FIRST_WAIT
        work.targets |= manifest.targets
        self.emit(events.IntentCreated(work.shard.stream, work.shard.shard_id, work.after, manifest.reach))
        return protocol.Created(etag)

    async def _replace(self, work: _Work, manifest: Manifest, etag: str) -> protocol.Event:
        stamped = manifest
        if manifest.sealed:
            now = self.clock.now().isoformat()
            stamped = with_seal(msgspec.structs.replace(manifest, sealed_by=self._worker, sealed_at=now))
        body, call = encode(stamped), "seal" if manifest.sealed else "amend intent"
        try:
            new = await self.log.replace(work.shard, body, work.after, etag)
        except Retryable as error:
            return await self._unknown(work, call, error)
        if new is None:
            work.refused = _Refusal(call, etag)
            return protocol.Refused()
        work.wait = FIRST_WAIT
        work.entry = Entry(stamped, body, new)
        work.targets |= stamped.targets
        where = (work.shard.stream, work.shard.shard_id, work.after)
        if stamped.sealed:
            self.sealed += 1
            self.emit(events.ManifestSealed(*where, stamped.reach))
        else:
            self.emit(events.IntentAmended(*where, stamped.reach, len(stamped.superseded)))
        return protocol.Replaced(new)

    async def _unknown(self, work: _Work, call: str, error: Retryable) -> protocol.Event:
        await self._pause(work, call, error)
        return protocol.Unknown()

    async def _pause(self, work: _Work, call: str, error: Retryable) -> None:
        await self.repeat.pause(call, work.shard, error, work.wait)
        work.wait = longer(work.wait)

    async def _all_in_place(self, work: _Work, files: Sequence[FileEntry]) -> bool:
        for entry in files:
            stored = await self._at(work, entry.sink, "read file", lambda store, key=entry.key: store.get(key))  # type: ignore[misc]
            if stored is None or len(stored.body) != entry.size or sha256_hex(stored.body) != entry.sha256:
                return False
        return True

    async def _write(self, work: _Work, file: OutputFile) -> None:
        begun = self.clock.monotonic()
        await self._at(work, file.sink, f"write to {file.sink}", lambda store: store.put(file.key, file.body))
        seconds, shard = self.clock.monotonic() - begun, work.shard
        self.emit(events.FileWritten(shard.stream, shard.shard_id, file.sink, file.rows, len(file.body), seconds))

    async def _delete(self, work: _Work, entry: FileEntry) -> None:
        await self._at(work, entry.sink, f"remove from {entry.sink}", lambda store: store.delete(entry.key))

    async def _at(self, work: _Work, sink: str, call: str, use: Callable[[ObjectStore], Awaitable[T]]) -> T:
        """What ``use`` makes of the place at which the unit has the files of ``sink``, even if the pipeline has that sink no more.

        Raises:
            Halted: the pipeline has nothing at that place now, and this worker cannot use it. Other shards may continue.
        """
        url = work.targets.get(sink)
        try:
            store = self._places.store(sink, url)
            return await self.repeat(call, work.shard, lambda: use(store))
        except (Fatal, DefinitionError) as error:
            if not self._places.is_former(sink, url):
                raise
            msg = (
                f"{work.shard.stream}/{work.shard.shard_id}: an unfinished unit writes to the sink `{sink}` at {url}, which was its place "
                f"when the unit was begun, and this worker cannot {call} there: {error}. Let its role read, write and delete there again "
                "(`stream iam` of the previous pipeline file prints how), or run the previous pipeline until the unit is sealed; "
                "nothing is read until then."
            )
            raise Halted(msg) from error


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A conditional write that was refused. ``etag``: of the manifest that it expected; empty if it expected none."""

    call: str
    etag: str

    def contradiction(self, url: str) -> str:
        """What the refusal means if the manifest is just as the write expected it."""
        found = f"still has the tag {self.etag}, which the write named" if self.etag else "does not exist"
        return (
            f"{url} refused the write as if another worker had been faster, but the manifest {found}. If this goes on, the store, or "
            "a proxy before it, does not do what If-Match and If-None-Match ask for"
        )


class _Work:
    """One unit that is being committed: the file bodies that this worker has, the manifest as last seen, and where it has its files.

    ``refused``: the last conditional write, if it was refused and the manifest was not read since. ``wait``: seconds before the next
    attempt at a conditional write that fails.
    """

    def __init__(self, shard: Shard, after: int, render: Renderer, bodies: dict[FileEntry, OutputFile]) -> None:
        self.shard = shard
        self.after = after
        self.render = render
        self.bodies = bodies
        self.entry: Entry | None = None
        self.targets: dict[str, str] = {}
        self.refused: _Refusal | None = None
        self.wait = FIRST_WAIT
