"""Which checkpoint a child of the MultiLangDaemon asks for."""

from hypothesis import example, given
from hypothesis import strategies as st

from stream import events
from stream.hosts.multilang import Progress
from stream.lease.multilang import Record

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["commit", "recover"]), st.integers(0, 6)),
        st.tuples(st.just("accept"), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
@example([("deliver", 1), ("deliver", 1), ("commit", 2)])
def test_it_is_the_last_record_of_a_delivery_that_is_committed_and_was_not_accepted_before(steps):
    progress, number, committed, accepted = Progress(), 0, 0, 0
    delivered = {}
    for what, amount in steps:
        match what:
            case "deliver":
                records = [Record(str(number + each + 1), b"", None, each or None) for each in range(amount)]
                number += amount
                progress.delivered(records)
                if records:
                    delivered[number] = (str(number), amount - 1)
            case "commit":
                progress(events.Checkpointed("s", "shard", amount))
                committed = max(committed, amount)
            case "recover":
                progress(events.RecoveryFinished("s", "shard", amount, 0, 0.0))
                committed = max(committed, amount)
            case "accept" if progress.due() is not None:
                accepted = int(progress.due()[0])
                progress.accepted()
        progress(events.Checkpointed("s", "shard", None))  # the end of the shard, which is not a record
        due = max((last for last in delivered if accepted < last <= committed), default=None)
        assert progress.due() == (None if due is None else delivered[due])
