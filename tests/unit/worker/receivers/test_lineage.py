"""The end of a run whose lineage receiver is slow; whole runs are in tests/integration/test_lineage.py."""

import asyncio
from datetime import timedelta

import aiohttp
from aiohttp import web

from stream.audit.lineage import RunState, RunTotals
from stream.storage.memory import MemoryStore
from stream.worker.receivers import lineage
from stream.worker.receivers.lineage import Reporter
from tests.sealed import StillClock
from tests.unit.audit.test_lineage import JOB

EVENTS = 40


def test_a_slow_lineage_receiver_does_not_delay_the_end(monkeypatch):
    monkeypatch.setattr(lineage, "TIMEOUT", 1.0)
    posted, store = [], MemoryStore()

    async def take(request):
        posted.append(await request.read())
        if len(posted) < EVENTS:
            return web.Response(status=503)
        slow = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, slow.cancel)
        await asyncio.wait([slow])
        return web.Response()

    async def run():
        runner = web.ServerRunner(web.Server(take))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            reporter = Reporter(JOB, "run", RunTotals(), store, StillClock(), lambda _event: None, timedelta(hours=1))
            reporter.post_to(session, f"http://127.0.0.1:{runner.addresses[0][1]}/")
            for state in [RunState.START, *[RunState.RUNNING] * (EVENTS - 2), RunState.COMPLETE]:
                await reporter.report(state)
        await runner.cleanup()

    asyncio.run(run())
    kept = [stored.body for stored in store._objects.values()]
    # Two seconds would have been needed for all of them; what was being taken may be here and there.
    assert kept
    assert len(kept) + len(posted) - (EVENTS - 1) in {EVENTS, EVENTS + 1}
    assert b'"COMPLETE"' in kept[-1]
