"""Each alert fires when it must and is silent when it must, as evaluated by promtool."""

import subprocess

import pytest
import yaml

from deploy.eks.monitoring.alerts import ALERTS, rules

WHERE = 'namespace="data", stream="flights"'
SHARD = f'{WHERE}, shard="shardId-000000000000"'
OTHER = f'{WHERE}, shard="shardId-000000000001"'
POD = 'namespace="data", pod="flights-0", instance="10.0.0.1:9464"'
POD_LABEL = 'pod="flights-0"'
DAY = 86400
RETENTION = f"kst_source_retention_seconds{{{WHERE}}}", f"{DAY}x240"
SOME = f'kst_records_total{{{WHERE}, outcome="written"}}', "0+6000x240"

UNREAD = (f"kst_source_open_shards{{{WHERE}}}", "4x240"), (f"kst_leases_held{{{WHERE}, {POD_LABEL}}}", "3x240")

CASES = {
    "StreamShardHalted": ([(f"kst_shard_halted{{{SHARD}}}", "1x240")], [(f"kst_shard_halted{{{SHARD}}}", "0x240")]),
    "StreamShardStalled": ([(f"kst_shard_stalled{{{SHARD}}}", "1x240")], [(f"kst_shard_stalled{{{SHARD}}}", "0x240")]),
    "StreamRecordsExpired": (
        [(f"kst_expired_gaps_total{{{WHERE}}}", "0x200 1x40")],
        [(f"kst_expired_gaps_total{{{WHERE}}}", "0x100 1x140")],
    ),
    "StreamRetentionQuarterUsed": (
        [RETENTION, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "22000x240")],
        [RETENTION, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "21000x240")],
    ),
    "StreamBehind": (
        [(f"kst_source_behind_latest_seconds{{{SHARD}}}", "301x240")],
        [(f"kst_source_behind_latest_seconds{{{SHARD}}}", "299x240")],
    ),
    "StreamNotSealing": (
        [(f"kst_shard_sealed_timestamp_seconds{{{SHARD}}}", "0x240"), (f"kst_source_behind_latest_seconds{{{SHARD}}}", "61x240")],
        [(f"kst_shard_sealed_timestamp_seconds{{{SHARD}}}", "0x240"), (f"kst_source_behind_latest_seconds{{{SHARD}}}", "0x240")],
    ),
    "StreamDeadLetters": (
        [SOME, (f'kst_records_total{{{WHERE}, outcome="dead_lettered"}}', "0+120x240")],
        [SOME, (f'kst_records_total{{{WHERE}, outcome="dead_lettered"}}', "0+30x240")],
    ),
    "StreamObjectsUnclaimed": (
        [(f"kst_objects_unclaimed_timestamp_seconds{{{WHERE}}}", "1x240")],
        [(f"kst_objects_unclaimed_timestamp_seconds{{{WHERE}}}", "0x240")],
    ),
    "StreamObjectsRefused": (
        [(f'kst_objects_refused_total{{{WHERE}, why="changed"}}', "0x200 1x40")],
        [(f'kst_objects_refused_total{{{WHERE}, why="changed"}}', "0x100 1x140")],
    ),
    "StreamQueueFailing": (
        [(f"kst_objects_queue_failing{{{WHERE}}}", "1x240")],
        [(f"kst_objects_queue_failing{{{WHERE}}}", "0x240")],
    ),
    "StreamThrottled": (
        [
            (f'kst_source_polls_total{{{WHERE}, result="ok"}}', "0+60x240"),
            (f'kst_source_polls_total{{{WHERE}, result="throttled"}}', "0+10x240"),
        ],
        [
            (f'kst_source_polls_total{{{WHERE}, result="ok"}}', "0+60x240"),
            (f'kst_source_polls_total{{{WHERE}, result="throttled"}}', "0+3x240"),
        ],
    ),
    "StreamMemoryBound": (
        [
            (f"kst_backpressure_seconds_total{{{POD}, stream='flights'}}", "0+60x240"),
            (f"kst_buffer_bytes{{{POD}}}", "95x240"),
            (f"kst_buffer_limit_bytes{{{POD}}}", "100x240"),
        ],
        [
            (f"kst_backpressure_seconds_total{{{POD}, stream='flights'}}", "0+60x240"),
            (f"kst_buffer_bytes{{{POD}}}", "50x240"),
            (f"kst_buffer_limit_bytes{{{POD}}}", "100x240"),
        ],
    ),
    "StreamCommitsSlow": (
        [(f'kst_unit_seconds_bucket{{{WHERE}, le="{le}"}}', f"0+{count}x240") for le, count in (("30.0", 50), ("60.0", 60), ("+Inf", 60))],
        [(f'kst_unit_seconds_bucket{{{WHERE}, le="{le}"}}', f"0+{count}x240") for le, count in (("30.0", 60), ("60.0", 60), ("+Inf", 60))],
    ),
    "StreamCallsRepeated": (
        [('kst_call_wait_seconds_total{namespace="data", call="put"}', "0+20x240")],
        [('kst_call_wait_seconds_total{namespace="data", call="put"}', "0+3x240")],
    ),
    "StreamAuditLag": (
        [(f"kst_audit_export_lag_seconds{{{SHARD}}}", "901x240")],
        [(f"kst_audit_export_lag_seconds{{{SHARD}}}", "30x240")],
    ),
    "StreamAuditRefused": (
        [(f'kst_audit_spans_total{{{WHERE}, result="parked"}}', "0+9x240")],
        [
            (f'kst_audit_spans_total{{{WHERE}, result="accepted"}}', "0+9x240"),
            (f'kst_audit_spans_total{{{WHERE}, result="parked"}}', "0x240"),
        ],
    ),
    "StreamLoadLag": (
        [(f'kst_load_lag_seconds{{{WHERE}, sink="redshift"}}', "1801x240")],
        [(f'kst_load_lag_seconds{{{WHERE}, sink="redshift"}}', "60x240")],
    ),
    "StreamLoadParked": (
        [(f'kst_load_parked_shards{{{WHERE}, sink="redshift"}}', "1x240")],
        [(f'kst_load_parked_shards{{{WHERE}, sink="redshift"}}', "0x240")],
    ),
    "StreamPaused": (
        [(f"kst_shard_paused{{{SHARD}}}", "1x240")],
        [(f"kst_shard_paused{{{SHARD}}}", "0x80 1x160")],
    ),
    "StreamReferenceStale": (
        [('kst_reference_tables_failing{namespace="data"}', "0x200 1x40")],
        [('kst_reference_tables_failing{namespace="data"}', "1x200 0x40")],
    ),
    "StreamAuditHalted": (
        [(f"kst_audit_export_halted{{{SHARD}}}", "0x200 1x40")],
        [(f"kst_audit_export_halted{{{SHARD}}}", "1x200 0x40")],
    ),
    "StreamShardUnread": (
        [*UNREAD, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "0x240")],
        [*UNREAD, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "0x220 900x20")],  # children wait for a parent that is read
    ),
    "StreamHashRangeHoles": (
        [(f"kst_lease_hash_range_holes{{{WHERE}}}", "0x200 1x40")],
        [(f"kst_lease_hash_range_holes{{{WHERE}}}", "1x200 0x40")],
    ),
    "StreamLeaseRowsLost": (
        [(f"kst_lease_rows_vanished_total{{{WHERE}}}", "_x200 1x40")],
        [(f"kst_lease_rows_vanished_total{{{WHERE}}}", "_x100 1x140")],
    ),
    "StreamLeaseRowsUnreadable": (
        [('kst_lease_rows_unreadable_total{namespace="data"}', "_x200 1+60x40")],
        [('kst_lease_rows_unreadable_total{namespace="data"}', "0+60x200 12060x40")],
    ),
    "StreamShardChurn": (
        [(f"kst_shards_started_total{{{WHERE}}}", "0+1x240"), (f"kst_leases_held{{{WHERE}}}", "4x240")],
        [(f"kst_shards_started_total{{{WHERE}}}", "4x240"), (f"kst_leases_held{{{WHERE}}}", "4x240")],
    ),
    "StreamCredentialsEnd": (
        [(f"kst_credentials_expire_timestamp_seconds{{{POD}}}", "14500x240")],
        [(f"kst_credentials_expire_timestamp_seconds{{{POD}}}", "0x240")],
    ),
    "StreamLoopBlocked": (
        [(f"kst_event_loop_lag_seconds{{{POD}}}", "6x240")],
        [(f"kst_event_loop_lag_seconds{{{POD}}}", "0.1x240")],
    ),
    "StreamStoreHung": (
        [(f'kst_store_hung{{{POD}, store="file:/data"}}', "1x240")],
        [(f'kst_store_hung{{{POD}, store="file:/data"}}', "0x240")],
    ),
    "StreamLogUnread": (
        [(f"kst_log_lines_dropped_total{{{POD}}}", "0x230 5x10")],
        [(f"kst_log_lines_dropped_total{{{POD}}}", "0x100 5x140")],
    ),
    "StreamRestarts": (
        [
            (f"process_start_time_seconds{{{POD}}}", "0x200 1 2 3 4x40"),
            (f'kst_build_info{{{POD}, version="1", worker="w"}}', "1x240"),
        ],
        [
            ('process_start_time_seconds{instance="somebody-else"}', "0x200 1 2 3 4x40"),
            (f'kst_build_info{{{POD}, version="1", worker="w"}}', "1x240"),
        ],
    ),
    "StreamDown": ([("up", "0x240")], [(f"kst_build_info{{{POD}}}", "1x240")]),
}
"""What Prometheus sees, a sample a minute for four hours: series with which the alert fires, and series with which it does not."""

ALSO_FIRES = {
    # The worker that finds the gap has often just started, and counts before the first scrape.
    "StreamRecordsExpired": [[(f"kst_expired_gaps_total{{{WHERE}}}", "_x200 1x40")]],
    # A collector that refused one request, whose series begins with it.
    "StreamAuditRefused": [[(f'kst_audit_spans_total{{{WHERE}, result="parked"}}', "_x200 500x40")]],
    # Pods come and go, each of which starts all four shards before it is scraped.
    "StreamShardChurn": [
        [
            *((f"kst_shards_started_total{{{WHERE}, pod='flights-{at}'}}", f"_x{160 + 5 * at} 4x5 _x{200 - 5 * at}") for at in range(16)),
            (f"kst_leases_held{{{WHERE}}}", "4x240"),
        ]
    ],
    # No lease is left, such as while the lease table does not answer, and so no shard that could be behind.
    "StreamShardUnread": [[(f"kst_source_open_shards{{{WHERE}}}", "4x240"), (f"kst_leases_held{{{WHERE}}}", "4x200 0x40")]],
    "StreamPaused": [[(f'kst_loads_paused{{{WHERE}, sink="redshift"}}', "1x240")]],
    # Records grow old while a shard is paused, too.
    "StreamRetentionQuarterUsed": [
        [RETENTION, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "22000x240"), (f"kst_shard_paused{{{SHARD}}}", "1x240")]
    ],
    "StreamBehind": [
        [
            (f"kst_source_behind_latest_seconds{{{OTHER}}}", "301x240"),
            (f"kst_source_behind_latest_seconds{{{SHARD}}}", "9999x240"),
            (f"kst_shard_paused{{{SHARD}}}", "1x240"),
            (f"kst_shard_paused{{{OTHER}}}", "0x240"),
        ]
    ],
    # Nothing was sealed since the shard was taken up.
    "StreamNotSealing": [
        [
            (f"kst_shard_sealed_timestamp_seconds{{{SHARD}}}", "_x200 12060x40"),
            (f"kst_source_behind_latest_seconds{{{SHARD}}}", "_x200 0+60x40"),
        ]
    ],
}
"""More series with which an alert fires."""

ALSO_SILENT = {
    "StreamAuditRefused": [[(f'kst_audit_spans_total{{{WHERE}, result="parked"}}', "_x100 500x140")]],
    # A rollout of four pods: each shard is started twice.
    "StreamShardChurn": [
        [
            *((f"kst_shards_started_total{{{WHERE}, pod='flights-{at}'}}", f"_x{230 + at} 2x{10 - at}") for at in range(4)),
            (f"kst_leases_held{{{WHERE}}}", "4x240"),
        ]
    ],
    "StreamRecordsExpired": [
        [(f"kst_expired_gaps_total{{{WHERE}}}", "_x100 1x140")],
        [(f"kst_expired_gaps_total{{{WHERE}}}", "_x200 0x40")],
    ],
    "StreamNotSealing": [
        [(f"kst_shard_sealed_timestamp_seconds{{{SHARD}}}", "0+60x240"), (f"kst_source_behind_latest_seconds{{{SHARD}}}", "61x240")],
        [
            (f"kst_shard_sealed_timestamp_seconds{{{SHARD}}}", "0x240"),
            (f"kst_source_behind_latest_seconds{{{SHARD}}}", "61x240"),
            (f"kst_shard_halted{{{SHARD}}}", "1x240"),  # that is another alert
        ],
        [
            (f"kst_shard_sealed_timestamp_seconds{{{SHARD}}}", "0x240"),
            (f"kst_source_behind_latest_seconds{{{SHARD}}}", "9999x240"),
            (f"kst_shard_paused{{{SHARD}}}", "1x240"),
        ],
    ],
    "StreamBehind": [[(f"kst_source_behind_latest_seconds{{{SHARD}}}", "9999x240"), (f"kst_shard_paused{{{SHARD}}}", "1x240")]],
    "StreamLoadLag": [
        [(f'kst_load_lag_seconds{{{WHERE}, sink="redshift"}}', "1801x240"), (f'kst_loads_paused{{{WHERE}, sink="redshift"}}', "1x240")]
    ],
    "StreamShardUnread": [
        [*UNREAD, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "0x240"), (f"kst_shard_paused{{{SHARD}}}", "1x240")],
        [*UNREAD, (f"kst_source_behind_latest_seconds{{{SHARD}}}", "0x240"), ('kst_lease_foreign_owners{namespace="data"}', "2x240")],
        [
            *UNREAD,
            (f"kst_leases_held{{{WHERE}, pod='flights-1'}}", "1x240"),
            (f"kst_source_behind_latest_seconds{{{SHARD}}}", "0x240"),
        ],
    ],
    "StreamCredentialsEnd": [[(f"kst_credentials_expire_timestamp_seconds{{{POD}}}", "40000x240")]],
}
"""More series with which an alert does not fire."""


def played(folder, name, series):
    """Whether the alert of that name is firing at the end of the series."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules()))
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": metric, "values": values} for metric, values in series],
                "alert_rule_test": [{"eval_time": "239m", "alertname": name, "exp_alerts": []}],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    # An alert that was not expected is the only way to fail here; anything else is a mistake in the test.
    assert done.returncode == 0 or "exp:[" in told, told
    return done.returncode != 0


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires(tmp_path, alert):
    for series in (CASES[alert.name][0], *ALSO_FIRES.get(alert.name, ())):
        assert played(tmp_path, alert.name, series), series


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_is_silent(tmp_path, alert):
    for series in (CASES[alert.name][1], *ALSO_SILENT.get(alert.name, ())):
        assert not played(tmp_path, alert.name, series), series


def test_promtool_takes_the_rules(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    done = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
