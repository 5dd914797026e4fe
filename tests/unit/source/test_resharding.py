"""A split halves the load if the keys allow it, and is not advised otherwise; adjacent cold shards are merged."""

from __future__ import annotations

import itertools
import shlex

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.source.keys import KeyLoad, Sample, hash_key
from stream.source.resharding import (
    HOT,
    SHARD_BYTES,
    SHARD_RECORDS,
    Advice,
    Kind,
    OpenShard,
    Place,
    Rate,
    advise,
    best_cut,
    commands,
    relieve,
)

FULL = 2**128 - 1
HOT_BY_RECORDS = Rate(1000.0, 0.9 * SHARD_RECORDS, 1000.0, SHARD_RECORDS)
LOADS = st.lists(st.builds(KeyLoad, st.text(max_size=3), st.integers(0, 40), st.floats(0.0, 9.0), st.floats(0.0, 9.0), st.just(1)))


def sample_of(loads: dict[str, float], places: dict[str, int] | None = None) -> Sample:
    """A sample of records of one byte each."""
    keys = [KeyLoad(key, hash_key(key) if places is None else places[key], load, load, round(load)) for key, load in loads.items()]
    total = sum(loads.values())
    return Sample(tuple(keys), total, total, round(total), total, total)


def drawn(seed: int, exponent: float, keys: int, records: int) -> Sample:
    """A sample of a workload in which the frequency of the n-th key is proportional to n ** -``exponent``."""
    weights = np.arange(1, keys + 1, dtype=float) ** -exponent
    counts = np.random.default_rng(seed).multinomial(records, weights / weights.sum())
    return sample_of({f"customer-{n}": float(count) for n, count in enumerate(counts) if count})


def halves(sample: Sample, at: int) -> tuple[float, float]:
    lower = sum(each.records for each in sample.keys if each.place is not None and each.place < at)
    return lower / sample.records, 1.0 - lower / sample.records


def one(sample: Sample | None, rate: Rate = HOT_BY_RECORDS) -> Advice:
    return relieve(OpenShard("s", 0, FULL, rate, sample), rate)


@given(LOADS, st.booleans())
def test_no_other_cut_divides_the_load_more_evenly(keys, by_records):
    def apart(at):
        load = [(each.place < at, each.records if by_records else each.size) for each in keys]
        return abs(sum(weight if below else -weight for below, weight in load))

    cut = best_cut(keys, by_records=by_records)
    places = sorted({each.place for each in keys})
    total = sum(each.records if by_records else each.size for each in keys)
    if len(places) < 2 or total == 0.0:
        assert cut is None
        return
    assert places[0] < cut.at <= places[-1]
    assert apart(cut.at) == pytest.approx(min(apart(at) for at in places[1:]), abs=1e-9)
    heaviest = max(sum((each.records if by_records else each.size) for each in keys if each.place == place) for place in places)
    assert apart(cut.at) <= heaviest + 1e-9
    assert cut.lower == pytest.approx(sum(each.records if by_records else each.size for each in keys if each.place < cut.at) / total)


@pytest.mark.parametrize(("seed", "exponent"), [(seed, exponent) for seed in range(4) for exponent in (0.0, 0.5, 0.8, 1.0)])
def test_after_the_advised_split_the_halves_of_a_zipf_workload_are_within_5_percent(seed, exponent):
    seen = drawn(seed, exponent, 50_000, 20_000)
    advice = one(seen)
    assert advice.kind is Kind.SPLIT
    # Records that nobody has looked at, of the same workload: as they come after the split.
    lower, upper = halves(drawn(seed + 1000, exponent, 50_000, 200_000), advice.at)
    heaviest = max(each.records for each in seen.keys) / seen.records
    assert abs(lower - upper) <= max(0.05, heaviest)
    assert heaviest < 0.05 or exponent == 1.0


@given(st.integers(0, 2**32), st.floats(0.0, 1.2), st.integers(2, 3000))
def test_a_split_is_inside_the_shard_and_its_halves_differ_by_at_most_the_heaviest_key(seed, exponent, keys):
    seen = drawn(seed, exponent, keys, 2000)
    advice = one(seen)
    if advice.kind is not Kind.SPLIT:
        assert advice.kind is Kind.SALT
        return
    assert 0 < advice.at <= FULL
    lower, upper = halves(seen, advice.at)
    assert lower == pytest.approx(advice.lower)
    assert abs(lower - upper) <= max(each.records for each in seen.keys) / seen.records + 1e-9
    assert HOT_BY_RECORDS.use * max(lower, upper) < HOT or advice.share < 0.5


def test_one_hot_key_is_salted_and_not_split():
    advice = one(sample_of({"hot": 950.0, **{f"k{n}": 1.0 for n in range(50)}}))
    assert (advice.kind, advice.key, advice.share, advice.at) == (Kind.SALT, "hot", 0.95, None)
    assert "no split helps" in advice.why


def test_a_single_key_is_salted():
    assert one(sample_of({"hot": 1000.0})).kind is Kind.SALT


def test_a_key_that_would_keep_its_half_hot_is_salted_and_another_one_is_split_off():
    rest = {f"k{n}": 1.0 for n in range(400)}
    assert one(sample_of({"hot": 600.0, **rest}), Rate(0.0, 0.85 * SHARD_RECORDS)).kind is Kind.SPLIT
    assert "cannot be divided any further" in one(sample_of({"hot": 600.0, **rest}), Rate(0.0, 0.85 * SHARD_RECORDS)).why
    assert one(sample_of({"hot": 960.0, **rest}), Rate(0.0, SHARD_RECORDS * 1.2)).kind is Kind.SALT


def test_a_key_with_many_explicit_hash_keys_is_split_like_many_keys():
    keys = tuple(KeyLoad("one", 2**120 * n, 1.0, 1.0, 1) for n in range(1, 200))
    advice = one(Sample(keys, 199.0, 199.0, 199, 199.0, 199.0))
    assert advice.kind is Kind.SPLIT
    assert abs(advice.lower - 0.5) < 0.01


def test_the_limit_that_is_nearer_decides_what_is_halved():
    # The lower place has all the bytes, and the upper ones nearly all records.
    keys = (KeyLoad("fat", 1, 600.0, 1.0, 1), *(KeyLoad(f"k{n}", 2 + n, 1.0, 1.0, 1) for n in range(400)))
    sample = Sample(keys, 1000.0, 401.0, 401, 401.0, 401.0)
    assert one(sample, Rate(0.0, 0.9 * SHARD_RECORDS)).lower == pytest.approx(0.5, abs=0.01)
    assert one(sample, Rate(0.9 * SHARD_BYTES, 0.0)).lower == pytest.approx(0.6)


def test_without_a_large_enough_sample_the_advice_is_to_sample():
    assert one(None).kind is Kind.SAMPLE
    assert one(sample_of({f"k{n}": 1.0 for n in range(99)})).kind is Kind.SAMPLE
    assert one(sample_of({"hot": 50.0})).kind is Kind.SAMPLE
    assert one(sample_of({f"k{n}": 1.0 for n in range(101)})).kind is Kind.SPLIT


def test_no_cut_is_advised_if_many_records_have_explicit_hash_keys():
    known = {f"k{n}": 1.0 for n in range(700)}
    keys = (*sample_of(known).keys, KeyLoad("explicit", None, 300.0, 300.0, 300))
    advice = one(Sample(keys, 1000.0, 1000.0, 1000, 1000.0, 1000.0))
    assert (advice.kind, advice.at) == (Kind.PLACES, None)
    assert "30% of that was put with explicit hash keys" in advice.why


def cold(share: float, peak: float | None = None) -> Rate:
    busiest = None if peak is None else peak * SHARD_RECORDS
    return Rate(0.0, share * SHARD_RECORDS, None if peak is None else 0.0, busiest)


def row(*rates: Rate | None) -> list[OpenShard]:
    width = 2**128 // len(rates)
    return [OpenShard(f"s{n}", n * width, (n + 1) * width - 1, rate) for n, rate in enumerate(rates)]


def pairs(shards: list[OpenShard]) -> list[tuple[str, ...]]:
    return [each.shards for each in advise(shards) if each.kind is Kind.MERGE]


def test_cold_neighbours_are_merged_each_at_most_once():
    quiet = cold(0.1, 0.2)
    assert pairs(row(quiet, quiet, quiet, quiet, quiet)) == [("s0", "s1"), ("s2", "s3")]
    assert pairs(row(cold(0.2, 0.2), quiet, quiet, cold(0.2, 0.2))) == [("s1", "s2")]


def test_shards_whose_busiest_seconds_would_fill_one_shard_are_not_merged():
    assert pairs(row(cold(0.1, 0.5), cold(0.1, 0.2))) == [("s0", "s1")]
    assert pairs(row(cold(0.1, 0.5), cold(0.1, 0.3))) == []


def test_shards_with_unknown_rates_are_not_merged():
    assert pairs(row(cold(0.1, 0.1), None, cold(0.1, 0.1))) == []
    assert pairs(row(cold(0.1), cold(0.1, 0.1))) == []


def test_shards_that_are_not_adjacent_are_not_merged():
    first, second = row(cold(0.0, 0.0), cold(0.0, 0.0))
    assert pairs([second, first]) == [("s0", "s1")]
    assert pairs([first, OpenShard("s1", second.first + 1, second.last, second.rate)]) == []


@given(st.lists(st.sampled_from([None, cold(0.05, 0.1), cold(0.12, 0.2), cold(0.4, 0.5), cold(0.1)]), min_size=1, max_size=9))
def test_as_many_pairs_as_possible_are_merged(rates):
    shards = row(*rates)
    found = pairs(shards)
    merged = list(itertools.chain(*found))
    assert len(merged) == len(set(merged))

    def fits(at):
        one, other = shards[at].rate, shards[at + 1].rate
        known = one is not None and other is not None and one.peak is not None and other.peak is not None
        return known and one.use + other.use <= 0.25 and one.peak + other.peak < HOT

    def most(at):
        if at + 1 >= len(shards):
            return 0
        return max(most(at + 1), 1 + most(at + 2) if fits(at) else 0)

    assert len(found) == most(0)


def test_if_most_shards_are_hot_the_stream_grows_unless_keys_are_the_cause():
    (advice,) = advise(row(HOT_BY_RECORDS, HOT_BY_RECORDS, cold(0.3, 0.4)))
    assert (advice.kind, advice.count) == (Kind.GROW, 5)
    assert [each.kind for each in advise(row(HOT_BY_RECORDS, cold(0.3), cold(0.3)))] == [Kind.SAMPLE]
    shards = row(HOT_BY_RECORDS, HOT_BY_RECORDS)
    salted = [OpenShard("s0", 0, shards[0].last, HOT_BY_RECORDS, sample_of({"hot": 1000.0}, {"hot": 5})), shards[1]]
    assert [each.kind for each in advise(salted)] == [Kind.SALT, Kind.SAMPLE]


def test_growing_adds_at_least_one_shard_and_at_most_doubles_them():
    assert advise(row(*[Rate(0.0, 3.0 * SHARD_RECORDS)] * 2))[0].count == 4
    barely = Rate(0.0, HOT * SHARD_RECORDS)
    assert advise(row(barely, barely, cold(0.0, 0.0)))[0].count == 4
    assert advise(row(HOT_BY_RECORDS, cold(0.0, 0.0)))[0].kind is Kind.SAMPLE


def test_shards_with_unknown_rates_get_no_advice():
    assert advise(row(None, None)) == []
    assert advise([]) == []


def test_advice_comes_with_the_matching_aws_commands():
    place = Place("clicks", "eu-west-1", "http://127.0.0.1:4567")
    where = "--stream-name clicks --region eu-west-1 --endpoint-url http://127.0.0.1:4567"
    wait = f"aws kinesis wait stream-exists {where}"
    split = commands(Advice(Kind.SPLIT, ("a",), "", at=17), place)
    assert split == [f"aws kinesis split-shard --shard-to-split a --new-starting-hash-key 17 {where}", wait]
    merge = commands(Advice(Kind.MERGE, ("a", "b"), ""), place)
    assert merge == [f"aws kinesis merge-shards --shard-to-merge a --adjacent-shard-to-merge b {where}", wait]
    grow = commands(Advice(Kind.GROW, ("a", "b"), "", count=4), Place("clicks"))
    assert grow[0] == "aws kinesis update-shard-count --target-shard-count 4 --scaling-type UNIFORM_SCALING --stream-name clicks"
    shared = commands(Advice(Kind.GROW, ("a", "b"), "", count=4), Place("clicks@444455556666.eu-west-1"))
    assert all(line.endswith("--stream-arn arn:aws:kinesis:eu-west-1:444455556666:stream/clicks") for line in shared)
    assert commands(Advice(Kind.SALT, ("a",), ""), place) == commands(Advice(Kind.SAMPLE, ("a",), ""), place) == []
    assert shlex.split(commands(Advice(Kind.MERGE, ("a", "b"), ""), Place("c", endpoint="http://h/?a=b&c"))[0])[-1] == "http://h/?a=b&c"
