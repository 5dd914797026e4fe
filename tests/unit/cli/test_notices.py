from stream import events
from stream.cli.notices import Notices
from tests.unit.metrics.every_event import FixedClock


def test_waits_and_refusals_are_reported_while_a_command_runs(capsys):
    tell = Notices()
    tell(events.CallRepeated("events", "shard-1", "export spans", "0 ClientConnectorError at http://c", 1.5))
    tell(events.CallRepeated("", "", "lease Scan", "no answer", 0.2))
    tell(events.PollRepeated("events", "shard-2", "error", "refused", 0.2))
    tell(events.ExportRefused("events", "shard-1", 400, 1200, "Bad Request"))
    tell(events.LeaseRowUnreadable("", "", "flights", "row x has no leaseCounter"))
    tell(events.ExportLagged("events", "shard-1", 7.0))
    assert capsys.readouterr().err.splitlines() == [
        "shard-1: 0 ClientConnectorError at http://c; trying again in 1.5 s",
        "lease Scan: no answer; trying again in 0.2 s",
        "shard-2: refused; trying again in 0.2 s",
        "shard-1: the collector answered 400 Bad Request: 1,200 spans were not taken",
        "table flights: row x has no leaseCounter; it is passed over",
    ]


def test_one_cause_does_not_flood_the_terminal(capsys):
    clock = FixedClock()
    tell = Notices(clock)
    for _ in range(60):
        tell(events.CallRepeated("", "", "lease Scan", "no answer", 0.2))
        clock.seconds += 0.2
    assert len(capsys.readouterr().err.splitlines()) == 3
