"""What is reported of shards that delay the end of a worker."""

from stream import events
from stream.worker.shards.streams import MAX_SHOWN, PendingCalls


def again(shard, call="put file", detail="no answer"):
    return events.CallRepeated("s", shard, call, detail, 1.0)


def report(*happened, strict=False):
    pending = PendingCalls(strict=strict)
    for event in happened:
        pending(event)
    return str(pending)


def test_the_last_repeated_call_of_each_shard_is_reported():
    assert (
        report(again("b"), again("a"), again("a", "write manifest", "503"))
        == "  s/a waits for write manifest: 503\n  s/b waits for put file: no answer"
    )


def test_a_shard_that_continued_since_is_not_reported():
    for passed in (events.Checkpointed("s", "a", 1), events.ShardReleased("s", "a", "drain"), events.ShardEnded("s", "a", ())):
        assert report(again("a"), passed) == ""


def test_waiting_spans_are_reported_only_with_strict():
    refused = events.ExportHalted("s", "a", 403, "who are you", 60.0, blocking=True)
    for event, detail in ((again("a", "export spans"), "no answer"), (refused, "who are you")):
        assert report(event) == ""
        assert report(event, strict=True) == f"  s/a waits for export spans, for which checkpoints wait with `mode: strict`: {detail}"


def test_of_many_shards_some_are_listed_and_the_others_counted():
    lines = report(*(again(f"{number:03}") for number in range(MAX_SHOWN + 5))).splitlines()
    assert (len(lines), lines[-1]) == (MAX_SHOWN + 1, "  and 5 more shards")
