"""Clocks of workers and commands that run in the process of the test: the machine's clock, except that tests set the time of day."""

from datetime import UTC, datetime, timedelta

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
