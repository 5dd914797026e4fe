"""What happens to a fleet, and when: drawn from a seed, so that a run can be played again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

WEIGHTS = {"kill": 4, "freeze": 4, "drain": 4, "join": 3, "split": 4, "merge": 4, "storm": 3, "outage": 2, "crowd": 3}
"""Kinds of misfortune, and how often each comes beside the others."""

MEAN_SECONDS = 3.0
CALM_SECONDS = 6.0
"""At the beginning, in which the fleet comes up."""

SERVICES = ("kinesis", "dynamodb", "s3")
BREEZE = {"delay": 0.02, "late": 0.004, "drop": 0.004, "reset": 0.004, "error": 0.004, "throttle": 0.006, "lost": 0.006, "truncate": 0.003}
STORM = {"delay": 0.15, "late": 0.03, "drop": 0.04, "reset": 0.03, "error": 0.05, "throttle": 0.06, "lost": 0.06, "truncate": 0.03}
CROWD = {"throttle": 0.85, "lost": 0.01, "delay": 0.02}
"""What is throttled by a service lets little through, as when a table's partition is hot or an account is at its limit."""

OUTAGE = {"drop": 0.3, "reset": 0.3, "error": 0.3, "lost": 0.1}


@dataclass(frozen=True)
class Step:
    """``lasts``: seconds, of what does not pass by itself. ``choice``, in [0, 1), picks the worker, shard or service it happens to."""

    at: float
    act: str
    choice: float
    lasts: float


def draw(seed: int, seconds: float, failover: float) -> list[Step]:
    """Steps in order of time. A freeze lasts longer than ``failover``, so that the frozen worker wakes up as one that was replaced."""
    dice, steps, at = Random(seed), [], CALM_SECONDS
    acts, weights = list(WEIGHTS), list(WEIGHTS.values())
    while (at := at + dice.expovariate(1 / MEAN_SECONDS)) < seconds:
        act = dice.choices(acts, weights)[0]
        lasts = (
            failover * dice.uniform(1.2, 3.0)
            if act in {"freeze", "outage"}
            else failover * dice.uniform(0.5, 2.5)
            if act == "crowd"
            else dice.uniform(2.0, 8.0)
        )
        steps.append(Step(at, act, dice.random(), lasts))
    return steps


def weather(storm: str | None, outage: str | None, crowd: str | None = None) -> dict[str, dict[str, float]]:
    """The weather of each service: a breeze unless it is out, is crowded, or has a storm, whichever is worst."""
    kinds = ((outage, OUTAGE), (crowd, CROWD), (storm, STORM))
    return {each: next((kind for who, kind in kinds if who == each), BREEZE) for each in SERVICES}


def crowded(choice: float) -> str:
    """Which service is asked too much: as often as not the one that keeps the leases."""
    return ("dynamodb", "dynamodb", "kinesis", "s3")[int(choice * 4)]
