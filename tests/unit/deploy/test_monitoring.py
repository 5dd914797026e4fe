"""What dashboard and alerts ask for exists, and each alert has its runbook. What Prometheus says of them: `make dashboards-check`."""

import json
import re
from collections import Counter

import pytest
import yaml

from deploy.eks.monitoring.alerts import ALERTS, anchor
from deploy.eks.monitoring.panels import panels
from stream.metrics.catalog import CATALOG, Kind
from tests.docs.generate import ROOT
from tests.docs.test_pages import anchors

CHART = ROOT / "deploy" / "eks" / "chart"
RUNBOOK = ROOT / "docs" / "runbook.md"
SUFFIXES = ("", "_bucket", "_sum", "_count")
NAMES = {f"{metric.name}{suffix}" for metric in CATALOG for suffix in (SUFFIXES if metric.kind is Kind.HISTOGRAM else SUFFIXES[:1])}
MUST_BE_SHOWN = (
    "kst_source_retention_seconds",
    "kst_source_behind_latest_seconds",
    "kst_record_age_at_commit_seconds",
    "kst_source_user_records_total",
    "kst_records_total",
    "kst_dlq_records_total",
    "kst_shards_started_total",
    "kst_unit_seconds",
    "kst_audit_export_lag_seconds",
    "kst_source_polls_total",
    "kst_buffer_bytes",
    "kst_expired_gaps_total",
    "kst_credentials_expire_timestamp_seconds",
)


def asked(expr):
    return set(re.findall(r"\bkst_\w+", expr))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_has_a_runbook_section_and_uses_existing_metrics(alert):
    assert anchor(alert) in anchors(RUNBOOK)
    section = RUNBOOK.read_text().partition(f"\n### {alert.name}\n")[2].partition("\n#")[0]
    assert len(re.findall(r"^\d\. ", section, re.MULTILINE)) >= 2
    assert asked(alert.expr) <= NAMES
    assert asked(alert.expr)
    assert alert.severity in {"critical", "warning"}


def test_the_runbook_has_sections_for_existing_alerts_only():
    section = RUNBOOK.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (\w+)$", section, re.MULTILINE)) == {alert.name for alert in ALERTS}


def test_rules_link_to_their_runbook():
    rules = [rule for group in yaml.safe_load((CHART / "rules" / "stream.yaml").read_text())["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == [alert.name for alert in ALERTS]
    for rule in rules:
        path, _, place = rule["annotations"]["runbook"].partition("#")
        assert place in anchors(ROOT / path)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_each_panel_uses_existing_metrics_and_has_a_unit(panel):
    for legend, expr in panel.queries:
        assert asked(expr) <= NAMES
        assert asked(expr)
        assert legend
    assert panel.unit
    assert panel.description


def test_the_dashboard_shows_what_an_operator_must_see():
    shown = set().union(*(asked(expr) for panel in panels() for _, expr in panel.queries))
    assert [name for name in MUST_BE_SHOWN if not any(f"{name}{suffix}" in shown for suffix in SUFFIXES)] == []


def test_a_panel_without_data_says_what_that_means():
    """Where something must be configured or happen first, "No data" would look like a scrape that fails."""
    assert [panel.title for panel in panels() if bool(panel.needs) != bool(panel.empty)] == []
    drawn = {each["title"]: each for each in json.loads((CHART / "dashboards" / "stream.json").read_text())["panels"]}
    assert [panel.empty for panel in panels()] == [drawn[panel.title]["fieldConfig"]["defaults"].get("noValue", "") for panel in panels()]


def test_every_line_of_the_dashboard_is_full():
    drawn = json.loads((CHART / "dashboards" / "stream.json").read_text())["panels"]
    lines = Counter()
    for each in drawn:
        for line in range(each["gridPos"]["h"]):
            lines[each["gridPos"]["y"] + line] += each["gridPos"]["w"]
    assert set(lines.values()) == {24}
    assert sorted(lines) == list(range(len(lines)))


def test_panels_do_not_overlap_and_have_a_choosable_data_source():
    drawn = json.loads((CHART / "dashboards" / "stream.json").read_text())["panels"]
    taken = [
        (each["gridPos"]["x"] + column, each["gridPos"]["y"] + line)
        for each in drawn
        for column in range(each["gridPos"]["w"])
        for line in range(each["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(column for column, _ in taken) < 24
    assert {each["datasource"]["uid"] for each in drawn if each["type"] != "row"} == {"${datasource}"}
    assert len({each["id"] for each in drawn}) == len(drawn)
