import asyncio
import threading

import pytest

from stream.worker.process.threads import LEAST, limit_default_threads


@pytest.mark.parametrize(("transforming", "most"), [(1, LEAST), (2, 2), (5, 5)])
def test_calls_share_as_many_threads_as_transform_and_at_least_two(transforming, most):
    meeting = threading.Barrier(most, timeout=60)

    def work():
        meeting.wait()
        return threading.get_ident()

    async def run():
        limit_default_threads(transforming)
        return await asyncio.gather(*(asyncio.to_thread(work) for _ in range(3 * most)))

    assert len(set(asyncio.run(run()))) == most
