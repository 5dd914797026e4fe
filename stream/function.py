"""The handler of an AWS Lambda function that runs a pipeline: ``stream.function.handler``. See docs/lambda.md.

``STREAM_PIPELINE`` names the pipeline file; by default, pipeline.yaml in the function's folder. ``STREAM_LOG_LEVEL``: as for `stream run`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from stream.errors import DefinitionError
from stream.handler import Handler
from stream.hosts.allowance import within_memory
from stream.hosts.invoked import Function
from stream.pipeline.checks.host_names import Host
from stream.source.mapping import delivery_of, is_delivery
from stream.source.transformation import is_transformation
from stream.worker.assemble import WorkerOptions, usable_cores
from stream.worker.process.allocators import prepare_allocators

SCHEDULED: Final = "Scheduled Event"
"""``detail-type`` of what rules and schedules of EventBridge send."""


class FunctionHandler(Handler):
    """Processes events of an event source mapping for a Kinesis stream, or of a schedule."""

    host = Host.FUNCTION

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__(env)
        self._function: Function | None = None

    async def answer(self, event: Any, seconds: float) -> dict[str, Any]:
        """Process ``event``.

        Returns for a mapping what it understands: `batchItemFailures`, with the first record that is not sealed, if any. For a schedule,
        `left` says what is left for the next time.

        Raises:
            StreamError: nothing could be done, or a shard is halted. Lambda repeats the invocation.
        """
        if is_delivery(event):
            function = self._opened()
            delivery = delivery_of(event, function.streams)
            missing = None if delivery is None else await function.deliver(delivery, seconds)
            return {"batchItemFailures": [] if missing is None else [{"itemIdentifier": str(missing)}]}
        if isinstance(event, Mapping) and event.get("detail-type") == SCHEDULED:
            return {"left": list(await self._opened().catch_up(seconds))}
        if is_transformation(event):
            msg = "the event comes from Amazon Data Firehose; the handler for it is stream.firehose.handler (docs/firehose.md)"
            raise DefinitionError(msg)
        msg = (
            "the event is neither of an event source mapping for a Kinesis stream (it has no Records) nor of an EventBridge schedule "
            f"(its detail-type is not `{SCHEDULED}`); nothing was done"
        )
        raise DefinitionError(msg)

    async def shut(self) -> None:
        """Close connections."""
        if self._function is not None:
            await self._function.close()

    def _opened(self) -> Function:
        if self._function is None:
            pipeline, listeners = self.open()
            memory = self.env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
            prepare_allocators()
            # The name leads from a manifest to the log of the function that wrote it.
            name = self.env.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
            options = WorkerOptions(self.file.parent, self.env, 0.0, usable_cores(), listeners, self.clock, worker=name)
            self._function = Function(within_memory(pipeline, int(memory)) if memory else pipeline, options)
        return self._function


handler = FunctionHandler(os.environ)
