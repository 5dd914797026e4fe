from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stream import events as ev
from stream.contracts import Emit
from stream.metrics.catalog import BUFFER_BYTES, BUFFER_LIMIT_BYTES, CATALOG, LOOP_LAG, TELEMETRY_SPANS
from stream.metrics.recorder import COUNTED, Recorder
from stream.metrics.series import MAX_REASONS
from tests.unit.metrics.every_event import CLASSES, FixedClock, sample

WHERE = {"stream": "events", "shard": "shardId-1"}
STREAM = {"stream": "events"}

ONLY_LOGGED = {ev.LogLinesDropped, ev.LoopBlocked, ev.MemoryShort, ev.StackTaken, ev.StreamSucceeded, ev.UnitsPassedOver}
"""Written to the log, and to nobody else: how late the loop is, is measured all the time; records that went with a stream are counted as
such."""


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def recorder(registry):
    return Recorder(registry, FixedClock())


def series(registry):
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in registry.collect() for sample in family.samples}


def test_every_event_class_is_counted():
    assert set(COUNTED) == set(CLASSES) - ONLY_LOGGED


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in ONLY_LOGGED], ids=lambda kind: kind.__name__)
def test_every_event_changes_a_series(kind, registry, recorder):
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    before = series(registry)
    recorder(sample(kind))
    assert series(registry) != before


def test_every_metric_is_changed_by_something(registry, recorder):
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    for kind in CLASSES:
        if kind not in {ev.ShardEnded, ev.ShardReleased}:
            recorder(sample(kind))
    recorder.watch_buffer(lambda: 5, 10)
    recorder.set(LOOP_LAG, 0.1)
    recorder.add(TELEMETRY_SPANS, 1, "exported")
    held = series(registry)
    for kind in (ev.ShardEnded, ev.ShardReleased):
        recorder(sample(kind))
    seen = {name.removesuffix("_count") for name, labels in held | series(registry)}
    assert {metric.name for metric in CATALOG} <= seen
    assert registry.get_sample_value(BUFFER_BYTES.name) == 5
    assert registry.get_sample_value(BUFFER_LIMIT_BYTES.name) == 10


def test_a_page_counts_records_bytes_and_lag(registry, recorder):
    emit: Emit = recorder
    emit(ev.ShardStarted("events", "shardId-1", 0))
    emit(ev.PageReceived("events", "shardId-1", 10, 25, 4096, 1500, 0.02))
    emit(ev.PageReceived("events", "shardId-1", 0, 0, 0, 0, 0.02))
    assert registry.get_sample_value("kst_source_records_total", STREAM) == 10
    assert registry.get_sample_value("kst_source_user_records_total", STREAM) == 25
    assert registry.get_sample_value("kst_source_bytes_total", STREAM) == 4096
    assert registry.get_sample_value("kst_source_polls_total", STREAM | {"result": "empty"}) == 1
    assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) == 0


def test_a_sealed_unit_counts_its_records_by_outcome(registry, recorder):
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(ev.UnitSealed("events", "shardId-1", 1, 9, (("written", 7), ("filtered", 2)), 42.0, 3.0, 0.5))
    assert registry.get_sample_value("kst_records_total", STREAM | {"outcome": "filtered"}) == 2
    assert registry.get_sample_value("kst_record_age_at_commit_seconds_sum", STREAM | {"record": "oldest"}) == 42
    assert registry.get_sample_value("kst_shard_sealed_timestamp_seconds", WHERE) == 1000


PAUSED = ev.ShardPaused("events", "shardId-1", "ann@a", "new disks", "", 5000.0)


def test_while_a_shard_is_paused_its_lag_continues_growing_from_where_it_was(registry):
    clock = FixedClock()
    recorder = Recorder(registry, clock)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(ev.PageReceived("events", "shardId-1", 10, 25, 4096, 1500, 0.02))
    recorder(ev.ShardReleased("events", "shardId-1", "paused"))
    recorder(PAUSED)
    clock.seconds += 3600
    assert registry.get_sample_value("kst_shard_paused", WHERE) == 1
    assert registry.get_sample_value("kst_leases_held", STREAM) == 1
    assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) == 1.5 + 3600 - 60
    recorder(ev.ShardResumed("events", "shardId-1"))
    assert registry.get_sample_value("kst_shard_paused", WHERE) == 0
    assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) > 3500
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(ev.PageReceived("events", "shardId-1", 10, 25, 4096, 0, 0.02))
    assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) == 0


def test_a_worker_that_finds_a_shard_paused_takes_its_lag_from_the_log(registry):
    clock = FixedClock()
    recorder = Recorder(registry, clock)
    recorder(PAUSED)
    clock.seconds += 360
    assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) == 5000 + 360 - 60
    recorder(PAUSED)  # told again, because its end was moved
    assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) == 5000 + 360 - 60
    recorder(ev.ShardReleased("events", "shardId-1", "lease_lost"))
    assert registry.get_sample_value("kst_shard_paused", WHERE) is None
    assert registry.get_sample_value("kst_leases_held", STREAM) == 0


def test_paused_loads_are_shown_by_table(registry, recorder):
    where = STREAM | {"sink": "redshift"}
    recorder(ev.LoadsPaused("events", "", "redshift", "ann@a", "resize", ""))
    assert registry.get_sample_value("kst_loads_paused", where) == 1
    recorder(ev.LoadsResumed("events", "", "redshift"))
    assert registry.get_sample_value("kst_loads_paused", where) == 0


@pytest.mark.parametrize("end", [ev.ShardReleased("events", "shardId-1", "drain"), ev.ShardEnded("events", "shardId-1", ())])
def test_no_series_of_a_shard_outlives_it(end, registry, recorder):
    """One round per kind of event, then the end, then stragglers that were under way."""
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    stragglers = [sample(kind) for kind in CLASSES if kind not in {ev.ShardStarted, ev.ShardHalted}]
    for event in stragglers[:5]:
        recorder(event)
    recorder(ev.ShardHalted("events", "shardId-1", "gap"))
    assert b'shard="shardId-1"' in generate_latest(registry)
    recorder(end)
    for event in stragglers:
        recorder(event)
    assert b'shard="shardId-1"' not in generate_latest(registry)


def test_a_shard_that_comes_back_has_its_series_again(registry, recorder):
    for seconds in (1, 2):
        recorder(ev.ShardStarted("events", "shardId-1", 0))
        recorder(ev.PageReceived("events", "shardId-1", 1, 1, 1, 1000 * seconds, 0.1))
        assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) == seconds
        recorder(ev.ShardReleased("events", "shardId-1", "lease_lost"))
        assert registry.get_sample_value("kst_source_behind_latest_seconds", WHERE) is None


def test_held_shards_are_counted_per_stream(registry, recorder):
    for shard in ("a", "b"):
        recorder(ev.ShardStarted("events", shard, 0))
    recorder(ev.ShardStarted("events", "a", 0))
    assert registry.get_sample_value("kst_leases_held", STREAM) == 2
    recorder(ev.ShardReleased("events", "a", "lease_lost"))
    assert registry.get_sample_value("kst_leases_held", STREAM) == 1


HALTED = "kst_shard_halted"


def page(records=0, oldest=None):
    return ev.PageReceived("events", "shardId-1", records, records, records, 0, 0.1, oldest)


SEALED = ev.UnitSealed("events", "shardId-1", 1, 9, (("written", 7),), 42.0, 3.0, 0.5)


def test_a_halt_shows_until_something_is_sealed_however_often_the_shard_is_tried_again(registry, recorder):
    for _ in range(3):
        recorder(ev.ShardStarted("events", "shardId-1", 0))
        recorder(page(records=5))
        recorder(page())
        recorder(ev.ShardHalted("events", "shardId-1", "refused"))
        assert registry.get_sample_value(HALTED, WHERE) == 1
        recorder(ev.ShardStarted("events", "shardId-1", 0))
        assert registry.get_sample_value(HALTED, WHERE) == 1
    recorder(SEALED)
    assert registry.get_sample_value(HALTED, WHERE) == 0


def test_a_halt_is_over_if_there_is_nothing_left_at_which_the_shard_could_halt(registry, recorder):
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(page(records=5))
    recorder(ev.ShardHalted("events", "shardId-1", "refused"))
    recorder(ev.ShardStarted("events", "shardId-1", 7))
    recorder(page())
    assert registry.get_sample_value(HALTED, WHERE) == 0


def test_a_halted_shard_is_as_far_behind_as_its_oldest_record_is_old_however_often_it_is_read_to_its_tip(registry):
    recorder, clock = recorder_with_clock(registry)
    arrived = clock.now().timestamp() - 7200
    for _ in range(3):
        recorder(ev.ShardStarted("events", "shardId-1", 0))
        recorder(page(records=5, oldest=arrived))
        recorder(page(records=5, oldest=arrived + 30))
        assert registry.get_sample_value(BEHIND, WHERE) in {0, clock.now().timestamp() - arrived}
        recorder(ev.ShardHalted("events", "shardId-1", "refused"))
        assert registry.get_sample_value(BEHIND, WHERE) == clock.now().timestamp() - arrived
        clock.seconds += 3600
    recorder(SEALED)
    recorder(page())
    assert registry.get_sample_value(BEHIND, WHERE) == 0


def test_records_that_expired_in_a_halted_shard_are_late_no_more(registry):
    recorder, clock = recorder_with_clock(registry)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(page(records=5, oldest=clock.now().timestamp() - 90_000))
    recorder(ev.RecordsExpired("events", "shardId-1", 0, 7, "too old"))
    recorder(page(records=5, oldest=clock.now().timestamp() - 80_000))
    recorder(ev.ShardHalted("events", "shardId-1", "refused"))
    assert registry.get_sample_value(BEHIND, WHERE) == 80_000


def test_a_shard_that_another_worker_has_now_is_halted_here_no_more(registry, recorder):
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(ev.ShardHalted("events", "shardId-1", "refused"))
    recorder(ev.ShardReleased("events", "shardId-1", "lease_lost"))
    recorder(ev.ShardStarted("events", "shardId-1", 9))
    assert registry.get_sample_value(HALTED, WHERE) == 0


def test_reasons_over_the_limit_share_one_series(registry, recorder):
    for number in range(MAX_REASONS + 50):
        recorder(ev.RecordsRejected("events", "shardId-1", "python", f"reason-{number}", 1))
    recorder(ev.RecordsRejected("events", "shardId-1", "python", "reason-0", 1))
    family = STREAM | {"stage": "python"}
    assert registry.get_sample_value("kst_dlq_records_total", family | {"reason": "other"}) == 50
    assert registry.get_sample_value("kst_dlq_records_total", family | {"reason": "reason-0"}) == 2
    assert sum(name == "kst_dlq_records_total" for name, _ in series(registry)) == MAX_REASONS + 1


def test_events_from_many_threads_are_all_counted(registry, recorder):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: recorder(ev.Checkpointed("events", "shardId-1", 1)), range(800)))
    assert registry.get_sample_value("kst_checkpoints_total", STREAM) == 800


def test_unknown_events_and_impossible_values_do_not_raise(registry, recorder):
    recorder(ev.Event("events", "shardId-1"))
    recorder(ev.BudgetWaited("events", "shardId-1", -1.0))
    assert registry.get_sample_value("kst_backpressure_seconds_total", STREAM) == 0


BEHIND = "kst_source_behind_latest_seconds"


def recorder_with_clock(registry):
    clock = FixedClock()
    return Recorder(registry, clock), clock


@pytest.mark.parametrize(
    "event",
    [
        ev.ShardHalted("events", "shardId-1", "gap"),
        ev.PollRepeated("events", "shardId-1", "error", "no answer", 10.0),
        ev.CallRepeated("events", "shardId-1", "put object", "no answer", 20.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_shard_that_is_not_read_falls_behind_by_the_clock(event, registry):
    recorder, clock = recorder_with_clock(registry)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(ev.PageReceived("events", "shardId-1", 1, 1, 1, 2000, 0.1))
    clock.seconds += 3600
    recorder(event)
    assert registry.get_sample_value(BEHIND, WHERE) == pytest.approx(2 + 3600, abs=61)


def test_a_shard_without_a_page_falls_behind_from_its_start(registry):
    recorder, clock = recorder_with_clock(registry)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    assert registry.get_sample_value(BEHIND, WHERE) == 0
    clock.seconds += 600
    assert registry.get_sample_value(BEHIND, WHERE) == pytest.approx(600, abs=61)


def test_a_quiet_shard_at_its_tip_is_not_behind(registry):
    recorder, clock = recorder_with_clock(registry)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    for _ in range(5):
        clock.seconds += 59
        assert registry.get_sample_value(BEHIND, WHERE) == 0
        recorder(ev.PageReceived("events", "shardId-1", 0, 0, 0, 0, 0.1))


def test_a_halted_shard_whose_lease_moved_is_halted_and_no_longer_behind(registry):
    recorder, clock = recorder_with_clock(registry)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    recorder(ev.ShardHalted("events", "shardId-1", "unexpected"))
    recorder(ev.LeaseDropped("events", "shardId-1", "released"))
    clock.seconds += 3600
    assert registry.get_sample_value(BEHIND, WHERE) is None
    assert registry.get_sample_value("kst_shard_halted", WHERE) == 1


def test_a_shard_counts_as_sealed_when_it_is_started_so_that_one_that_never_seals_shows(registry):
    recorder, clock = recorder_with_clock(registry)
    recorder(ev.ShardStarted("events", "shardId-1", 0))
    clock.seconds += 100
    recorder(ev.ShardStarted("events", "shardId-1", 5))  # after a recovery of the same hold
    assert registry.get_sample_value("kst_shard_sealed_timestamp_seconds", WHERE) == 1000


def test_a_stream_halted_as_a_whole_is_not_counted_as_a_shard(registry, recorder):
    recorder(ev.ShardHalted("events", "", "it is gone"))
    assert registry.get_sample_value("kst_shard_halted", {"stream": "events", "shard": ""}) == 1
    recorder(ev.StreamResumed("events", ""))
    assert registry.get_sample_value("kst_shard_halted", {"stream": "events", "shard": ""}) == 0
    assert registry.get_sample_value("kst_leases_held", STREAM) == 0
    assert registry.get_sample_value(BEHIND, {"stream": "events", "shard": ""}) is None


def test_negative_ages_do_not_reduce_the_sum(registry, recorder):
    recorder(ev.UnitSealed("events", "shardId-1", 1, 9, (("written", 7),), 0.2, -0.3, 0.5))
    assert registry.get_sample_value("kst_record_age_at_commit_seconds_sum", STREAM | {"record": "newest"}) == 0
