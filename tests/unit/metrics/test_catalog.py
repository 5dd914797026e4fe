import re

import pytest

from stream.metrics.catalog import CATALOG, PER_SHARD, Kind

BOUNDED = {
    "status",
    "stream",
    "shard",
    "store",
    "result",
    "trigger",
    "how",
    "outcome",
    "record",
    "stage",
    "reason",
    "sink",
    "call",
    "why",
    "version",
    "worker",
}


def test_names_are_unique():
    assert len({metric.name for metric in CATALOG}) == len(CATALOG) > 30


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_each_metric_follows_the_naming_rules(metric):
    assert re.fullmatch(r"kst_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    assert set(metric.labels) <= BOUNDED
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    if metric.unit:
        assert f"_{metric.unit}" in metric.name


def test_only_gauges_have_a_shard_label():
    """A counter that goes away with its shard would make rates jump."""
    assert {metric.kind for metric in PER_SHARD} == {Kind.GAUGE}
