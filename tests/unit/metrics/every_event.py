"""One instance of each event class, found by walking events.py, so that a new class cannot be forgotten."""

import dataclasses
import typing

from stream import events

CLASSES = sorted(
    (kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event),
    key=lambda kind: kind.__name__,
)

SAMPLES = {
    str: "text",
    int: 7,
    float: 0.5,
    bool: True,
    int | None: 2**185,
    float | None: 0.5,
    tuple[str, ...]: ("one", "two"),
    tuple[tuple[str, int], ...]: (("written", 3),),
}


def sample(kind, **fields):
    hints = typing.get_type_hints(kind)
    made = {field.name: SAMPLES[hints[field.name]] for field in dataclasses.fields(kind)}
    return kind(**(made | {"stream": "events", "shard": "shardId-1"} | fields))


class FixedClock:
    """Time that stands still until it is moved."""

    def __init__(self):
        self.seconds = 1000.0

    def now(self):
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self):
        return self.seconds

    async def sleep(self, seconds):
        self.seconds += seconds
