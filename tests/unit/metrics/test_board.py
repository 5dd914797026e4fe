"""What a worker says of its own shards: the state after each event, and the page made of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from stream import events as ev
from stream.metrics.board import Board, page
from stream.metrics.thresholds import BEHIND_SECONDS

WHERE = "events", "shardId-1"


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, 3, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def received(behind: float, where: tuple[str, str] = WHERE) -> ev.Event:
    return ev.PageReceived(*where, 1, 1, 1, round(behind * 1000), 0.1)


def sealed(written: int, dead: int) -> ev.Event:
    return ev.UnitSealed(*WHERE, 0, 9, (("dead_lettered", dead), ("written", written)), 0.0, 0.0, 0.1)


def shown(*happened: ev.Event, clock: Hand | None = None) -> list[dict[str, Any]]:
    board = Board("app", clock or Hand())
    for event in happened:
        board(event)
    rows: list[dict[str, Any]] = board.document({}, None)["shards"]
    return rows


def test_a_shard_from_its_start_to_its_release() -> None:
    (row,) = shown(ev.ShardStarted(*WHERE, 0), received(3), sealed(90, 10), sealed(5, 0))
    assert (row["state"], row["behind_seconds"], row["records"], row["dead_letters"]) == ("reading", 3.0, 105, 10)
    assert row["sealed"] == "2026-01-01T03:00:00+00:00"
    assert shown(ev.ShardStarted(*WHERE, 0), ev.ShardReleased(*WHERE, "drain")) == []
    assert shown(ev.ShardStarted(*WHERE, 0), ev.ShardEnded(*WHERE, ())) == []


def test_a_page_of_a_shard_that_was_given_up_does_not_bring_it_back() -> None:
    assert shown(ev.ShardStarted(*WHERE, 0), ev.ShardReleased(*WHERE, "lease_lost"), received(3)) == []


@pytest.mark.parametrize("stop", [ev.ShardHalted(*WHERE, "events/shardId-1: most are bad"), ev.ShardStalled(*WHERE, 700.0)])
def test_a_shard_that_stands_still_is_first_and_says_why_until_it_goes_on(stop: ev.Event) -> None:
    other = ev.ShardStarted("events", "shardId-0", 0)
    rows = shown(other, ev.ShardStarted(*WHERE, 0), stop)
    assert [(row["shard"], row["trouble"]) for row in rows] == [("shardId-1", True), ("shardId-0", False)]
    assert rows[0]["reason"] in {"most are bad", "nothing has moved for 700 s"}
    tip = ev.PageReceived(*WHERE, 0, 0, 0, 0, 0.1)
    assert [row["trouble"] for row in shown(stop, ev.ShardStarted(*WHERE, 0), tip)] == [False]


def test_a_halted_shard_that_is_tried_again_is_shown_as_halted_until_something_of_it_is_sealed() -> None:
    again = [ev.ShardHalted(*WHERE, "refused"), ev.ShardStarted(*WHERE, 0), received(0)]
    (row,) = shown(*again)
    assert (row["state"], row["reason"], row["trouble"]) == ("halted", "refused", True)
    (row,) = shown(*again, sealed(9, 0))
    assert (row["state"], row["reason"], row["trouble"], row["records"]) == ("reading", "", False, 9)


def test_a_paused_shard_is_shown_with_its_reason_and_is_no_trouble() -> None:
    paused = ev.ShardPaused(*WHERE, "ann", "<hot key>", "2026-01-01T05:00:00+00:00", BEHIND_SECONDS * 2)
    before = (ev.ShardStarted(*WHERE, 0), ev.ShardReleased(*WHERE, "paused"))
    board = Board("app", Hand())
    for event in (*before, paused):
        board(event)
    document = board.document({}, None)
    (row,) = document["shards"]
    assert (row["state"], row["reason"]) == ("paused", "by ann, until 2026-01-01T05:00:00Z: <hot key>")
    assert (row["trouble"], row["behind_seconds"]) == (False, BEHIND_SECONDS * 2)
    text = page(document)
    assert "paused by ann, until 2026-01-01T05:00:00Z: &lt;hot key&gt;" in text
    assert "fine" in text
    assert [row["state"] for row in shown(*before, paused, ev.ShardResumed(*WHERE))] == ["starting"]
    assert [row["state"] for row in shown(*before, paused, ev.ShardResumed(*WHERE), ev.ShardStarted(*WHERE, 0))] == ["reading"]
    assert shown(*before, paused, ev.ShardReleased(*WHERE, "lease_lost")) == []


def test_it_falls_behind_further_while_there_is_no_news() -> None:
    clock = Hand()
    board = Board("app", clock)
    board(ev.ShardStarted(*WHERE, 0))
    board(received(BEHIND_SECONDS - 1))
    (row,) = board.document({}, None)["shards"]
    assert row["trouble"] is False
    clock.moment += timedelta(seconds=2)
    (row,) = board.document({}, None)["shards"]
    assert (row["trouble"], row["behind_seconds"]) == (True, BEHIND_SECONDS + 1)
    # At the tip, no news is good news, unless the shard stands still.
    board(received(0))
    clock.moment += timedelta(hours=1)
    assert board.document({}, None)["shards"][0]["behind_seconds"] == 0.0
    board(ev.ShardHalted(*WHERE, "bad"))
    assert board.document({}, None)["shards"][0]["behind_seconds"] == 3600.0


class Reader(HTMLParser):
    """The tags of a page, checked for balance, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_no_script() -> None:
    board = Board("a<b>", Hand())
    for event in (ev.ShardStarted(*WHERE, 0), received(400), sealed(90, 10), ev.ShardHalted("events", "<i>", "bad")):
        board(event)
    reader = Reader()
    reader.feed(page(board.document({"export <x>": "<x>: <y>"}, "<z><script>")))
    assert reader.open == []
    assert not reader.seen & {"script", "i", "b><", "x", "y", "z", "link", "img"}
    for words in ("a<b>", "needs attention", "<script>", "export <x>: <y>", "is 400 s behind", "<z>", "100"):
        assert words in reader.text
    empty = page(Board("app", Hand()).document({}, None))
    assert "fine" in empty
    assert "This worker reads no shard now." in empty
