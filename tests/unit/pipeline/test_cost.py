from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import DefinitionError
from stream.pipeline.cost import DAY, Outcome, Prices, Rate, cuts, estimate, lease_writes
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least

PARTS = {"partition_by": ["carrier"]}


def pipeline(**changes):
    return Pipeline.model_validate(least(**changes))


@pytest.mark.parametrize(
    ("rate", "trigger", "seconds"),
    [
        (Rate(100, 1000, 1), "age", 60.0),
        (Rate(1000, 1024, 1), "bytes", 16 * 1024 / 1000),
        (Rate(100_000, 10, 1), "rows", 5.0),
        (Rate(100_000, 1024, 100), "pressure", 4 * 1024 / 1000),
        (Rate(0.001, 10, 1), "age", 1000.0),
    ],
)
def test_the_limit_reached_first_ends_a_unit(rate, trigger, seconds):
    cut = cuts(pipeline(), rate)
    assert cut.trigger == trigger
    assert cut.seconds == pytest.approx(seconds)


def test_the_estimate_of_a_day_adds_up():
    found = estimate(pipeline(sinks=[{"s3": {"url": "s3://lake/flights/", **PARTS}}]), Rate(400, 500, 4), Outcome(0.1, 3.0))
    assert found.units == pytest.approx(4 * DAY / 60)
    assert found.data_objects == pytest.approx(3 * found.units)
    assert found.log_objects == pytest.approx(2 * found.units)
    assert found.data_bytes == pytest.approx(400 * 500 * DAY * 0.1)
    puts = {item.what: item for item in found.items}
    assert puts["S3 PUT of data files"].dollars == pytest.approx(3 * found.units * 30.4 * 0.005 / 1000)
    assert puts["S3 PUT of commit log and ledger"].quantity == pytest.approx(4 * found.units)
    assert found.dollars == pytest.approx(sum(item.dollars for item in found.items))


def test_only_partitions_with_records_make_files():
    many = Outcome(1.0, 100.0)
    rate = Rate(1, 100, 1)
    plain = estimate(pipeline(), rate, many)
    parted = estimate(pipeline(sinks=[{"s3": {"url": "s3://lake/flights/", **PARTS}}]), rate, many)
    assert plain.data_objects == pytest.approx(plain.units)
    assert parted.data_objects == pytest.approx(60 * parted.units)


def test_local_stores_cost_nothing():
    assert estimate(pipeline(state="file:state", sinks=[{"files": {"url": "file:lake"}}]), Rate(10, 10, 1)).items == ()


def test_prices_can_be_given():
    free = Prices.of({"s3_put_per_1000": 0, "s3_gb_month": 0})
    assert estimate(pipeline(), Rate(10, 10, 1), prices=free).dollars == 0
    assert Prices.of({}) == Prices()


@pytest.mark.parametrize(
    "given", [{"s3_put": 1}, {"s3_gb_month": -1}, {"s3_gb_month": "x"}, {"s3_gb_month": True}, {"s3_gb_month": float("nan")}]
)
def test_invalid_prices_are_refused(given):
    with pytest.raises(DefinitionError, match=next(iter(given))):
        Prices.of(given)


@pytest.mark.parametrize("rate", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (float("inf"), 1, 1)])
def test_invalid_rates_are_refused(rate):
    with pytest.raises(DefinitionError, match="larger than 0"):
        Rate(*rate)


def test_a_lease_is_renewed_three_times_per_failover_time():
    assert lease_writes(2) == pytest.approx(2 * 86_400 * 3 / 10)


@given(st.floats(0.001, 1e6), st.floats(1, 1e6), st.integers(1, 1000), st.floats(1, 4))
def test_more_records_never_cost_less(records, size, shards, factor):
    before, after = (estimate(pipeline(), Rate(each, size, shards)) for each in (records, records * factor))
    assert after.dollars >= before.dollars * (1 - 1e-9)
    assert after.cuts.records <= pipeline().flush.rows * (1 + 1e-9)


def test_with_a_lease_table_the_put_of_the_checkpoint_is_saved():
    found = estimate(pipeline(coordination="native"), Rate(400, 500, 4))
    bill = {item.what: item.quantity for item in found.items}
    assert bill["S3 PUT of commit log and ledger"] == pytest.approx(3 * found.units)
    assert bill["DynamoDB writes of leases"] == pytest.approx(lease_writes(4) + found.units)
