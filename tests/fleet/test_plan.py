"""A seed determines its plan, and a long plan has steps of every kind."""

from __future__ import annotations

import re

from tests.fleet.fleet import sealed_while_paused
from tests.fleet.plan import SERVICES, WEIGHTS, draw, fault_rates
from tests.forked import ROOT


def test_a_seed_determines_the_plan():
    assert draw(7, 300.0, 3.0) == draw(7, 300.0, 3.0)
    assert draw(7, 300.0, 3.0) != draw(8, 300.0, 3.0)


def test_a_longer_plan_begins_like_a_shorter_one():
    short = draw(7, 100.0, 3.0)
    assert draw(7, 300.0, 3.0)[: len(short)] == short


def test_the_events_of_a_plan_are_in_order_and_within_its_time():
    steps = draw(1, 600.0, 3.0)
    assert {step.act for step in steps} == set(WEIGHTS)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert steps[-1].at < 600.0
    assert min(step.lasts for step in steps if step.act == "freeze") > 3.0


def test_the_run_that_every_change_must_pass_has_steps_of_every_kind():
    seconds = re.search(r'"FLEET_SECONDS": "(\d+)"', (ROOT / ".ci" / "targets.py").read_text())
    assert {step.act for step in draw(1, float(seconds[1]), 6.0)} == set(WEIGHTS)


def test_what_a_worker_seals_of_a_paused_shard_is_found():
    def line(event: str, shard: str = "a") -> str:
        return f'{{"event":"{event}","shard":"{shard}"}}'

    paused, resumed, sealed = line("shard_paused"), line("shard_resumed"), line("unit_sealed")
    assert sealed_while_paused("\n".join([sealed, paused, line("unit_sealed", "b"), resumed, sealed])) == ([], 1)
    assert sealed_while_paused("\n".join([paused, line("shard_released"), sealed, sealed[:-5]])) == ([], 1)
    assert sealed_while_paused("\n".join([paused, sealed, line("shard_started")])) == ([sealed, line("shard_started")], 1)


def test_fault_rates_never_exceed_one():
    for errors in (None, *SERVICES):
        for outage in (None, *SERVICES):
            for throttling in (None, *SERVICES):
                assert max(sum(rates.values()) for rates in fault_rates(errors, outage, throttling).values()) <= 1.0
                if throttling is not None and throttling != outage:
                    assert fault_rates(errors, outage, throttling)[throttling]["throttle"] > 0.5
