"""How one unit is committed exactly once: a pure state machine that takes events and returns one instruction for each.

Why it exists. A lease says who *should* work on a shard. But a paused worker may wake up after it has lost its lease and still write, so no
lease can say who *does*. Correctness therefore rests on one object per unit, the manifest at the unit's start position, and on two
operations of the store: a create that fails if the object exists, and a replace that fails if the object has changed. With these, any
number of workers may believe that they own the shard, run different versions, stop anywhere and lose any reply:

* the worker that creates the manifest fixes the range and the files of the unit; all others adopt it (*intent*);
* files are named by their content, so writing one twice changes nothing, and a different one never overwrites it;
* the manifest becomes *sealed*, by compare-and-swap, only after all its files are in place, and never changes again;
* a worker that cannot reproduce the recorded bytes (another build, a changed table) replaces the intent's file list with its own, by
  compare-and-swap and only while it is an intent (*amend*), writes its files, seals, and only then deletes what it superseded;
* a worker whose replace was refused reads the manifest again, and removes those of its own files that the sealed manifest does not list.

A lost reply is not a failure: the machine reads the manifest again and finds either its own work or another worker's.

What was rejected. Fencing by lease counter alone: it protects the lease row, not the objects. KCL's prepared checkpoint alone: it loses or
duplicates data once two versions run side by side, because both write under the same keys. Multipart uploads left open until the
checkpoint: they leave orphans, and no evidence afterwards. A transaction coordinator: one more system to operate.

There is one outstanding instruction at a time. ``begin`` returns the first, ``advance`` the next one after each event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeAlias

import msgspec

from stream.commit.manifest import FileEntry, Manifest, State

# --- instructions: what the committer must do next --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """Read the manifest at the unit's start. Answered by ``Found`` or ``Absent``."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the manifest if there is none. Answered by ``Created``, ``Refused`` or ``Unknown``."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Verify:
    """Check that every file is in place with its size and checksum. Answered by ``Verified``."""

    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Render:
    """Re-read the manifest's range and run the definition that it names. Answered by ``Rendered``."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Write:
    """Write the files, whose bytes this worker has. Answered by ``Written``."""

    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace the manifest if its ETag is still ``etag``. Answered by ``Replaced``, ``Refused`` or ``Unknown``."""

    manifest: Manifest
    etag: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the files. Answered by ``Deleted``."""

    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Stop. ``manifest`` is sealed, or None if no unit was begun here."""

    manifest: Manifest | None


Instruction: TypeAlias = ReadManifest | Create | Verify | Render | Write | Replace | Delete | Finish

# --- events: the outcome of an instruction ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The current manifest and its ETag."""

    manifest: Manifest
    etag: str


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no manifest."""


@dataclass(frozen=True, slots=True)
class Created:
    """This worker created the manifest, which has this ETag."""

    etag: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """This worker replaced the manifest, which now has this ETag."""

    etag: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Another worker was first; nothing was written."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No reply: the write may have happened, may still happen, or may never happen."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether every file is in place."""

    complete: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """The intent that this worker made from the recorded range; the worker has the bytes of ``manifest.files``."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Written:
    """All files are in place."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """All files are deleted."""


Event: TypeAlias = Found | Absent | Created | Replaced | Refused | Unknown | Verified | Rendered | Written | Deleted


class Phase(Enum):
    """Which event the machine is waiting for."""

    READING = auto()
    CREATING = auto()
    VERIFYING = auto()
    RENDERING = auto()
    AMENDING = auto()
    WRITING = auto()
    SEALING = auto()
    CLEANING = auto()
    FINISHED = auto()


@dataclass(frozen=True, slots=True)
class Unit:
    """The state of one worker's commit of one unit.

    ``own``: an intent whose file bodies this worker has. ``current`` and ``etag``: the manifest in the log, as last seen. ``written``:
    files that this worker may have written, and which it deletes if the sealed manifest does not list them.
    """

    phase: Phase
    own: Manifest | None = None
    current: Manifest | None = None
    etag: str = ""
    written: frozenset[FileEntry] = frozenset()

    def contradiction(self) -> str | None:
        """The invariant that this state violates, or None. Simulations check it after every step."""
        holding = {Phase.WRITING, Phase.SEALING, Phase.AMENDING, Phase.VERIFYING, Phase.RENDERING}
        if self.phase in holding and (self.current is None or self.current.sealed or not self.etag):
            return f"{self.phase} needs an intent and its tag"
        if self.phase is Phase.WRITING and (self.own is None or self.current is None or not self.own.same_content(self.current)):
            return "only files whose bytes are held may be written"
        if self.phase is Phase.CLEANING and (self.current is None or not self.current.sealed):
            return "nothing may be removed before the manifest is sealed"
        return None


class InvalidTransition(Exception):
    """An event that does not fit the phase, which means that the committer has a bug."""


def begin(own: Manifest | None) -> tuple[Unit, Instruction]:
    """The first state and instruction: to commit ``own`` or, if it is None, only to complete what another worker may have begun."""
    if own is None:
        return Unit(Phase.READING), ReadManifest()
    return Unit(Phase.CREATING, own=own), Create(own)


def advance(unit: Unit, event: Event) -> tuple[Unit, Instruction]:  # noqa: C901, PLR0911 - one case per line of the transition table
    """The next state and instruction.

    Raises:
        InvalidTransition: the event does not answer the outstanding instruction.
    """
    match unit.phase, event:
        case (Phase.CREATING, Created(etag)) if unit.own is not None:
            return _write(unit, unit.own, etag)
        case (Phase.CREATING | Phase.AMENDING | Phase.SEALING, Refused() | Unknown()):
            return replace(unit, phase=Phase.READING), ReadManifest()
        case (Phase.READING, Absent()):
            return begin(unit.own) if unit.own is not None else _finish(unit, None)
        case (Phase.READING, Found(manifest, etag)):
            return _found(unit, manifest, etag)
        case (Phase.VERIFYING, Verified(complete)) if unit.current is not None:
            if complete:
                return _seal(unit, unit.current)
            return replace(unit, phase=Phase.RENDERING), Render(unit.current)
        case (Phase.RENDERING, Rendered(manifest)) if unit.current is not None:
            return _rendered(replace(unit, own=manifest), manifest, unit.current)
        case (Phase.AMENDING, Replaced(etag)) if unit.own is not None:
            return _write(unit, unit.own, etag)
        case (Phase.WRITING, Written()) if unit.current is not None:
            return _seal(unit, unit.current)
        case (Phase.SEALING, Replaced(_)) if unit.current is not None:
            return _clean_up(unit, sealed(unit.current))
        case (Phase.CLEANING, Deleted()):
            return _finish(unit, unit.current)
        case _:
            msg = f"{event!r} does not answer {unit!r}"
            raise InvalidTransition(msg)


def sealed(intent: Manifest) -> Manifest:
    """The same manifest in state ``sealed``."""
    return msgspec.structs.replace(intent, state=State.SEALED)


def leftovers(manifest: Manifest, written: frozenset[FileEntry] = frozenset()) -> tuple[FileEntry, ...]:
    """The files that belong to no unit: those that the sealed ``manifest`` superseded, and those of ``written`` that it does not list."""
    return tuple(sorted((written | set(manifest.superseded)) - set(manifest.files)))


def _found(unit: Unit, manifest: Manifest, etag: str) -> tuple[Unit, Instruction]:
    if manifest.sealed:
        return _clean_up(unit, manifest)
    if unit.own is not None and unit.own.same_content(manifest):
        if manifest == unit.current and unit.written.issuperset(manifest.files):
            # Nobody deletes files of an intent, so they are still in place. A store that refuses seals is not sent all of them again.
            return _seal(replace(unit, etag=etag), manifest)
        return _write(unit, manifest, etag)
    return replace(unit, phase=Phase.VERIFYING, current=manifest, etag=etag), Verify(manifest.files)


def _rendered(unit: Unit, own: Manifest, current: Manifest) -> tuple[Unit, Instruction]:
    if own.same_content(current):
        return _write(unit, current, unit.etag)
    superseded = tuple(sorted({*current.superseded, *current.files} - set(own.files)))
    amended = msgspec.structs.replace(own, superseded=superseded, previous=current.previous)
    return replace(unit, phase=Phase.AMENDING, own=amended), Replace(amended, unit.etag)


def _write(unit: Unit, manifest: Manifest, etag: str) -> tuple[Unit, Instruction]:
    written = unit.written | set(manifest.files)
    return replace(unit, phase=Phase.WRITING, current=manifest, etag=etag, written=written), Write(manifest.files)


def _seal(unit: Unit, intent: Manifest) -> tuple[Unit, Instruction]:
    return replace(unit, phase=Phase.SEALING), Replace(sealed(intent), unit.etag)


def _clean_up(unit: Unit, manifest: Manifest) -> tuple[Unit, Instruction]:
    extra = leftovers(manifest, unit.written)
    if not extra:
        return _finish(unit, manifest)
    return replace(unit, phase=Phase.CLEANING, current=manifest), Delete(extra)


def _finish(unit: Unit, manifest: Manifest | None) -> tuple[Unit, Instruction]:
    return replace(unit, phase=Phase.FINISHED), Finish(manifest)
