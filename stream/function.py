"""The handler of an AWS Lambda function that runs a pipeline: ``stream.function.handler``. See docs/lambda.md.

``STREAM_PIPELINE`` names the pipeline file; by default, pipeline.yaml in the function's folder. ``STREAM_LOG_LEVEL``: as for `stream run`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import uvloop

from stream import events
from stream.clock import SystemClock
from stream.errors import DefinitionError, Halted, StreamError, unforeseen
from stream.metrics.embedded import EmbeddedMetrics
from stream.metrics.logs import JsonLog, Level
from stream.pipeline.lint import check
from stream.pipeline.model import Pipeline
from stream.source.mapping import delivery_of, is_delivery
from stream.worker.allocators import prepare_allocators
from stream.worker.allowance import refuse_unfit, within_memory
from stream.worker.assemble import WorkerOptions, usable_cores
from stream.worker.invoked import Function

SCHEDULED: Final = "Scheduled Event"
"""``detail-type`` of what rules and schedules of EventBridge send."""


class Context(Protocol):
    """What Lambda says about an invocation, as far as it is used."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is stopped by force."""
        ...


class Handler:
    """One execution environment, opened by its first invocation and used by all that follow. Lambda ends it without a word."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._clock = SystemClock()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._function: Function | None = None
        self._log: JsonLog | None = None
        self._metrics: EmbeddedMetrics | None = None

    def __call__(self, event: Any, context: Context) -> dict[str, Any]:
        """Process ``event``: of an event source mapping for a Kinesis stream, or of a schedule.

        Returns for a mapping what it understands: `batchItemFailures`, with the first record that is not sealed, if any. For a schedule,
        `left` says what is left for the next time.

        Raises:
            StreamError: nothing could be done, or a shard is halted. Lambda repeats the invocation.
        """
        seconds = context.get_remaining_time_in_millis() / 1000
        try:
            return self._runner.run(self._answer(event, seconds))
        except StreamError as error:
            self._tell(error, str(error))
            # Lambda logs the error with its trace, which is of no use for an error that says what is wrong.
            raise error.with_traceback(None) from None
        except Exception as error:
            self._tell(error, unforeseen(error))
            raise
        finally:
            if self._metrics is not None:
                self._metrics.flush()
            if self._log is not None:
                self._log.flush()

    def close(self) -> None:
        """Close connections and the event loop."""
        if self._function is not None:
            self._runner.run(self._function.close())
        self._runner.close()

    async def _answer(self, event: Any, seconds: float) -> dict[str, Any]:
        if is_delivery(event):
            delivery = delivery_of(event)
            missing = None if delivery is None else await self._opened().deliver(delivery, seconds)
            return {"batchItemFailures": [] if missing is None else [{"itemIdentifier": str(missing)}]}
        if isinstance(event, Mapping) and event.get("detail-type") == SCHEDULED:
            return {"left": list(await self._opened().catch_up(seconds))}
        msg = (
            "the event is neither of an event source mapping for a Kinesis stream (it has no Records) nor of an EventBridge schedule "
            f"(its detail-type is not `{SCHEDULED}`); nothing was done"
        )
        raise DefinitionError(msg)

    def _opened(self) -> Function:
        if self._function is None:
            file = Path(self._env.get("STREAM_PIPELINE") or Path(self._env.get("LAMBDA_TASK_ROOT", ".")) / "pipeline.yaml")
            self._log = JsonLog(_to_stderr, self._clock, self._level())
            pipeline = self._pipeline(file)
            self._metrics = EmbeddedMetrics(pipeline.application, _to_stdout, self._clock)
            prepare_allocators()
            # The name leads from a manifest to the log of the function that wrote it.
            name = self._env.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
            listeners = (self._log, self._metrics)
            options = WorkerOptions(file.parent, self._env, 0.0, usable_cores(), listeners, self._clock, worker=name)
            self._function = Function(pipeline, options)
        return self._function

    def _pipeline(self, file: Path) -> Pipeline:
        checked = check(file, self._env)
        if checked.pipeline is None:
            msg = "the pipeline cannot be run:\n" + "\n".join(finding.render() for finding in checked.findings)
            raise DefinitionError(msg)
        refuse_unfit(checked.pipeline, on_lambda="AWS_LAMBDA_FUNCTION_NAME" in self._env)
        memory = self._env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        return within_memory(checked.pipeline, int(memory)) if memory else checked.pipeline

    def _level(self) -> Level:
        name = self._env.get("STREAM_LOG_LEVEL", Level.INFO.name).upper()
        if name not in Level.__members__:
            msg = f"STREAM_LOG_LEVEL is {name.lower()}; it may be {', '.join(level.name.lower() for level in Level)}"
            raise DefinitionError(msg)
        return Level[name]

    def _tell(self, error: Exception, reason: str) -> None:
        if self._log is not None and not isinstance(error, Halted):
            self._log(events.WorkerFailed("", "", reason))


def _to_stderr(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()


def _to_stdout(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


handler = Handler(os.environ)
