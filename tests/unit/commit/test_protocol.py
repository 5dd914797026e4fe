"""In each state, each event leads to exactly one instruction, and no sequence of events violates an invariant."""

import msgspec
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from stream.commit import protocol as p
from stream.commit.manifest import FileEntry
from tests.unit.commit.manifests import file, intent

A, B, C, D = file("a"), file("b"), file("c"), file("d")
MINE, OTHER = intent(A, B), intent(A, C)
ENTRIES = {each: FileEntry.of(each) for each in (A, B, C, D)}
SEALED = p.sealed(MINE)
THIRD = intent(A, D)
AMENDED = msgspec.structs.replace(MINE, superseded=(ENTRIES[C],))


def after(own, *seen):
    state, todo = p.begin(own)
    for event in seen:
        state, todo = p.advance(state, event)
        assert state.contradiction() is None
    return todo


TABLE = [
    ("own begins", MINE, [], p.Create(MINE)),
    ("nothing of ours", None, [], p.ReadManifest()),
    ("nobody began", None, [p.Absent()], p.Finish(None)),
    ("created, so written", MINE, [p.Created("t")], p.Write(MINE.files)),
    ("written, so sealed", MINE, [p.Created("t"), p.Written()], p.Replace(SEALED, "t")),
    ("sealed", MINE, [p.Created("t"), p.Written(), p.Replaced("u")], p.Finish(SEALED)),
    ("no reply to create", MINE, [p.Unknown()], p.ReadManifest()),
    ("create lost on the way", MINE, [p.Unknown(), p.Absent()], p.Create(MINE)),
    ("create had arrived", MINE, [p.Unknown(), p.Found(MINE, "t")], p.Write(MINE.files)),
    ("another was first", MINE, [p.Refused(), p.Found(OTHER, "t")], p.Verify(OTHER.files)),
    ("another's files are there", MINE, [p.Refused(), p.Found(OTHER, "t"), p.Verified(True)], p.Replace(p.sealed(OTHER), "t")),
    ("another's files are missing", MINE, [p.Refused(), p.Found(OTHER, "t"), p.Verified(False)], p.Render(OTHER)),
    ("reproduced", None, [p.Found(OTHER, "t"), p.Verified(False), p.Rendered(OTHER)], p.Write(OTHER.files)),
    ("not reproduced", None, [p.Found(OTHER, "t"), p.Verified(False), p.Rendered(MINE)], p.Replace(AMENDED, "t")),
    (
        "amended, so written",
        None,
        [p.Found(OTHER, "t"), p.Verified(False), p.Rendered(MINE), p.Replaced("u")],
        p.Write(MINE.files),
    ),
    (
        "sealed, so taken back",
        None,
        [p.Found(OTHER, "t"), p.Verified(False), p.Rendered(MINE), p.Replaced("u"), p.Written(), p.Replaced("v")],
        p.Delete((ENTRIES[C],)),
    ),
    (
        "amended again, by a third build",
        None,
        [p.Found(AMENDED, "t"), p.Verified(False), p.Rendered(THIRD)],
        p.Replace(msgspec.structs.replace(THIRD, superseded=(ENTRIES[B], ENTRIES[C])), "t"),
    ),
    (
        "lost after writing",
        MINE,
        [p.Created("t"), p.Written(), p.Refused(), p.Found(p.sealed(OTHER), "u")],
        p.Delete((ENTRIES[B],)),
    ),
    (
        "lost after writing, then again after writing what another began",
        MINE,
        [
            *(p.Created("t"), p.Written(), p.Refused(), p.Found(OTHER, "u"), p.Verified(False), p.Rendered(OTHER)),
            *(p.Written(), p.Refused(), p.Found(p.sealed(THIRD), "v")),
        ],
        p.Delete((ENTRIES[B], ENTRIES[C])),
    ),
    ("another sealed the same", MINE, [p.Created("t"), p.Written(), p.Refused(), p.Found(SEALED, "u")], p.Finish(SEALED)),
    ("no reply to seal", MINE, [p.Created("t"), p.Written(), p.Unknown()], p.ReadManifest()),
    (
        "seal lost on the way, and somebody has written the same intent again",
        MINE,
        [p.Created("t"), p.Written(), p.Unknown(), p.Found(MINE, "u")],
        p.Replace(SEALED, "u"),
    ),
    (
        "not reproduced, and the renderer does not know what comes before",
        None,
        [p.Found(intent(A, C, previous="link"), "t"), p.Verified(False), p.Rendered(MINE)],
        p.Replace(msgspec.structs.replace(AMENDED, previous="link"), "t"),
    ),
]


@pytest.mark.parametrize(("own", "seen", "todo"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_event_leads_to_the_next_instruction(own, seen, todo):
    assert after(own, *seen) == todo


@pytest.mark.parametrize("event", [p.Absent(), p.Written(), p.Replaced("t"), p.Verified(True), p.Rendered(MINE), p.Deleted()])
def test_an_event_that_does_not_answer_the_instruction_is_refused(event):
    state, _ = p.begin(MINE)
    with pytest.raises(p.InvalidTransition):
        p.advance(state, event)


def answers(todo, data):
    """Every event that can answer an instruction."""
    found = st.sampled_from([MINE, OTHER, SEALED, p.sealed(OTHER)]).map(lambda manifest: p.Found(manifest, "t"))
    match todo:
        case p.ReadManifest():
            return data.draw(found | st.just(p.Absent()))
        case p.Create():
            return data.draw(st.sampled_from([p.Created("t"), p.Refused(), p.Unknown()]))
        case p.Replace():
            return data.draw(st.sampled_from([p.Replaced("t"), p.Refused(), p.Unknown()]))
        case p.Verify():
            return p.Verified(data.draw(st.booleans()))
        case p.Render(manifest):
            return p.Rendered(data.draw(st.sampled_from([manifest, MINE, OTHER])))
        case p.Write():
            return p.Written()
        case _:
            return p.Deleted()


@given(st.data(), st.sampled_from([MINE, None]))
def test_no_sequence_of_answers_violates_an_invariant(data, own):
    state, todo = p.begin(own)
    sealed_seen = False
    for _ in range(30):
        if isinstance(todo, p.Finish):
            assert todo.manifest is None or todo.manifest.sealed
            break
        assert not isinstance(todo, p.Delete) or sealed_seen
        event = answers(todo, data)
        note(f"{todo} -> {event}")
        sealed_seen |= isinstance(event, p.Found) and event.manifest.sealed
        sealed_seen |= isinstance(event, p.Replaced) and isinstance(todo, p.Replace) and todo.manifest.sealed
        state, todo = p.advance(state, event)
        assert state.contradiction() is None


def test_each_violated_invariant_is_described():
    assert "needs an intent" in p.Unit(p.Phase.SEALING).contradiction()
    assert "bytes are held" in p.Unit(p.Phase.WRITING, own=MINE, current=OTHER, etag="t").contradiction()
    assert "before the manifest is sealed" in p.Unit(p.Phase.CLEANING, current=MINE, etag="t").contradiction()
