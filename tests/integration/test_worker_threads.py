"""Which threads a worker has while it seals units."""

from __future__ import annotations

import threading

from stream import events
from stream.storage.aside import THREADS
from stream.worker.process.threads import LEAST
from tests.integration.stage import Stage


def test_a_worker_of_one_thread_has_few_others_for_files(stage: Stage) -> None:
    """More would take the interpreter's lock from the one that transforms, for moments, but all the time. State and sink are two stores."""
    before, names = set(threading.enumerate()), set()

    def sealed(event: events.Event) -> bool:
        names.update(thread.name.rpartition("_")[0] or thread.name for thread in set(threading.enumerate()) - before)
        running = [thread.name for thread in set(threading.enumerate()) - before]
        assert sum(name.startswith("aside_") for name in running) <= LEAST
        assert running.count("files") <= 2 * THREADS
        return isinstance(event, events.UnitSealed)

    stage.put(range(50))
    stage.work(sealed)
    assert {"files", "render"} <= names
    assert not {"asyncio", "uvloop"} & names, "asyncio's own pool is in use"
