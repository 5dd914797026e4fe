"""Which threads a worker has while it seals units."""

from __future__ import annotations

import threading

from stream import events
from stream.worker.process.threads import LEAST
from tests.integration.stage import Stage


def test_a_worker_of_one_thread_writes_files_with_two_others(stage: Stage) -> None:
    """More would take the interpreter's lock from the one that transforms, for moments, but all the time."""
    before, names = set(threading.enumerate()), set()

    def sealed(event: events.Event) -> bool:
        names.update(thread.name.rpartition("_")[0] or thread.name for thread in set(threading.enumerate()) - before)
        aside = [thread for thread in threading.enumerate() if thread.name.startswith("aside_")]
        assert len(aside) <= LEAST
        return isinstance(event, events.UnitSealed)

    stage.put(range(50))
    stage.work(sealed)
    assert {"aside", "render"} <= names
    assert not {"asyncio", "uvloop"} & names, "asyncio's own pool is in use"
