"""Every panel shows data when Prometheus scrapes a running pipeline, and no alert fires while it is healthy."""

import json
import math
import urllib.error

import pytest

from deploy.eks.monitoring.alerts import ALERTS
from deploy.eks.monitoring.panels import panels
from deploy.eks.monitoring.running import ROOT, demo, until
from stream.metrics.catalog import CATALOG, Kind

DASHBOARD = json.loads((ROOT / "deploy/eks/chart/dashboards/stream.json").read_text())
SHOWN = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] if panel["type"] != "row" for target in panel["targets"]]
EMPTY_WHEN_WELL = {panel.title for panel in panels() if panel.needs in {"trouble", "pressure", "redshift", "objects"}}
FILLED = {"$namespace": ".*", "$stream": ".*", "$__rate_interval": "30s"}


def filled(expr):
    for name, value in FILLED.items():
        expr = expr.replace(name, value)
    return expr


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    with demo(tmp_path_factory.mktemp("demo")) as running:

        def up():
            try:
                return any(value > 0 for _, value in running.now("sum(kst_units_sealed_total)"))
            except (urllib.error.URLError, ConnectionError):
                return False

        assert until(up), "no unit was sealed"
        yield running


@pytest.mark.parametrize(("title", "expr"), SHOWN, ids=[f"{title}-{at}" for at, (title, _) in enumerate(SHOWN)])
def test_a_panel_shows_something(prometheus, title, expr):
    def shown():
        return any(math.isfinite(value) for _, value in prometheus.now(filled(expr)))

    if title in EMPTY_WHEN_WELL:
        prometheus.now(filled(expr))
        return
    assert until(shown), f"nothing for {filled(expr)}"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_prometheus_evaluates_an_alert_without_error(prometheus, alert):
    prometheus.now(alert.expr)


def test_nothing_alarms_while_all_is_well(prometheus):
    firing = {labels["alertname"] for labels, _ in prometheus.now('ALERTS{alertstate="firing"}')}
    assert firing == set()


def test_what_is_scraped_is_what_the_catalogue_says(prometheus):
    names = {labels["__name__"] for labels, _ in prometheus.now('{__name__=~"kst_.*"}')}
    known = {
        f"{metric.name}{end}" for metric in CATALOG for end in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
    }
    # Beside each counter and histogram the client shows when it began.
    began = {f"{metric.name.removesuffix('_total')}_created" for metric in CATALOG}
    assert names - known - began == set()
    assert len(names & known) > 30
