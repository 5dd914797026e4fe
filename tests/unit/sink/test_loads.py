from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.sink.layouts import Column, Layout
from stream.sink.loads import Link, Load, StagedFile, choose, is_quiet, joined, remaining

ONE, OTHER = (Layout((Column(name, "bigint", "bigint"),)) for name in ("a", "b"))


def link(shard, after, *, full=True, layout=ONE, sealed="2026-01-01T00:00:00+00:00"):
    files = (StagedFile(f"s3://b/{shard}-{after}", 100, 5),) if full else ()
    return Link(shard, after, after + 1, files, layout if full else None, sealed)


def test_units_without_rows_alone_are_not_loaded():
    assert choose({}, 10) is None
    assert choose({"a": (link("a", 0, full=False),)}, 10) is None


def test_the_oldest_unit_decides_the_layout():
    waiting = {"a": (link("a", 0, sealed="2"), link("a", 1, layout=OTHER, sealed="3")), "b": (link("b", 0, layout=OTHER, sealed="1"),)}
    first = choose(waiting, 10)
    assert [(each.shard, each.after) for each in first.links] == [("b", 0)]
    second = choose(remaining(waiting, first), 10)
    assert [(each.shard, each.after) for each in second.links] == [("a", 0)]
    third = choose(remaining(remaining(waiting, first), second), 10)
    assert [(each.shard, each.after) for each in third.links] == [("a", 1)]
    assert third.layout == OTHER


def test_adjacent_units_without_rows_share_one_ledger_row():
    links = ()
    for at in range(6):
        links = joined(links, link("a", at, full=at == 2, sealed=f"at {at}"))
    assert links == (Link("a", 0, 2, sealed_at="at 0", links=2), link("a", 2, sealed="at 2"), Link("a", 3, 6, sealed_at="at 3", links=3))


def test_a_load_knows_its_rows_bytes_and_files():
    load = Load((link("a", 0), link("a", 1, full=False), link("b", 0)), ONE)
    assert (load.rows, load.bytes, len(load.files)) == (10, 200, 2)
    first, second = load.halves()
    assert first.links + second.links == load.links
    assert load.without({"a"}).links == (link("b", 0),)
    assert load.without({"a", "b"}) == Load((), None)


SHARDS = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.tuples(st.booleans(), st.sampled_from([ONE, OTHER]), st.integers(1, 9)), max_size=8), max_size=4
)


@given(SHARDS, st.integers(1, 12))
def test_loads_are_prefixes_of_shards_and_everything_is_loaded_in_the_end(shards, most):
    waiting = {
        shard: tuple(link(shard, at, full=full, layout=layout, sealed=f"{sealed}") for at, (full, layout, sealed) in enumerate(given_links))
        for shard, given_links in shards.items()
    }
    while (load := choose(waiting, most)) is not None:
        assert 1 <= len(load.links) <= most
        assert {each.layout for each in load.links} <= {None, load.layout}
        for shard, links in waiting.items():
            mine = [each for each in load.links if each.shard == shard]
            assert mine == list(links[: len(mine)])
        waiting = remaining(waiting, load)
    assert not any(each.files for links in waiting.values() for each in links)


@pytest.mark.parametrize(
    ("time", "quiet"),
    [
        ("21:59", False),
        ("22:00", True),
        ("23:59", True),
        ("00:00", True),
        ("02:29", True),
        ("02:30", False),
        ("11:59", False),
        ("12:00", True),
        ("12:30", False),
    ],
)
def test_quiet_windows_may_cross_midnight(time, quiet):
    now = datetime.strptime(f"2026-01-01 {time}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert is_quiet(("22:00-02:30", "12:00-12:30"), now) is quiet


@given(st.integers(2, 40))
def test_a_load_is_split_in_the_middle_so_that_a_unit_that_fails_is_found_in_a_few_loads(count):
    whole = Load(tuple(link("a", at) for at in range(count)), ONE)
    first, second = whole.halves()
    assert first.links + second.links == whole.links
    assert len(second.links) - len(first.links) in {0, 1}
