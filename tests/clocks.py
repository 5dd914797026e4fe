"""Clocks of workers and commands that run in the process of the test: the machine's clock, except that tests set the time of day."""

from datetime import UTC, datetime, timedelta
from typing import Final

from stream.clock import SystemClock


class ShiftedClock(SystemClock):
    """The machine's clock, set ahead by ``ahead``."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class StandingClock(SystemClock):
    """Stands still at ``moment`` until a test moves it."""

    def __init__(self, moment: datetime = datetime(2026, 1, 1, 3, tzinfo=UTC)) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment


class HurriedClock(SystemClock):
    """Everything on it takes a thousandth of its time."""

    HURRY: Final = 1000

    def monotonic(self) -> float:
        return super().monotonic() * self.HURRY

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self.HURRY)
