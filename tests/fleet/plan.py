"""The steps of a run and their times, drawn from a seed, so that a run can be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

WEIGHTS = {"kill": 4, "freeze": 4, "drain": 4, "join": 3, "split": 4, "merge": 4, "errors": 3, "outage": 2, "throttling": 3, "pause": 4}
"""What a step can do, and how often each comes in proportion to the others."""

MEAN_SECONDS = 3.0
CALM_SECONDS = 6.0
"""Without steps at the beginning, in which the fleet starts."""

SERVICES = ("kinesis", "dynamodb", "s3")
FEW = {"delay": 0.02, "late": 0.004, "drop": 0.004, "reset": 0.004, "error": 0.004, "throttle": 0.006, "lost": 0.006, "truncate": 0.003}
MANY = {"delay": 0.15, "late": 0.03, "drop": 0.04, "reset": 0.03, "error": 0.05, "throttle": 0.06, "lost": 0.06, "truncate": 0.03}
THROTTLING = {"throttle": 0.85, "lost": 0.01, "delay": 0.02}
"""Most requests are throttled, as when a partition of a table is hot or an account is at its limit."""

OUTAGE = {"drop": 0.3, "reset": 0.3, "error": 0.3, "lost": 0.1}


@dataclass(frozen=True)
class Step:
    """``act`` happens ``at`` seconds after the start, for ``lasts`` seconds if it lasts.

    ``choice``, in [0, 1), picks the worker, shard or service.
    """

    at: float
    act: str
    choice: float
    lasts: float


def draw(seed: int, seconds: float, failover: float) -> list[Step]:
    """Steps in order of time. A freeze lasts longer than ``failover``, so that the worker has been replaced when it continues."""
    rng, steps, at = Random(seed), [], CALM_SECONDS
    acts, weights = list(WEIGHTS), list(WEIGHTS.values())
    while (at := at + rng.expovariate(1 / MEAN_SECONDS)) < seconds:
        act = rng.choices(acts, weights)[0]
        lasts = (
            failover * rng.uniform(1.2, 3.0)
            if act in {"freeze", "outage"}
            else failover * rng.uniform(0.5, 2.5)
            if act == "throttling"
            else rng.uniform(2.0, 8.0)
        )
        steps.append(Step(at, act, rng.random(), lasts))
    return steps


def fault_rates(errors: str | None, outage: str | None, throttling: str | None = None) -> dict[str, dict[str, float]]:
    """Each service's probability of each fault: the worst that is chosen for the service, else ``FEW``."""
    kinds = ((outage, OUTAGE), (throttling, THROTTLING), (errors, MANY))
    return {each: next((rates for service, rates in kinds if service == each), FEW) for each in SERVICES}


def throttled_service(choice: float) -> str:
    """Which service throttles: in half of the cases the one that keeps the leases."""
    return ("dynamodb", "dynamodb", "kinesis", "s3")[int(choice * 4)]
