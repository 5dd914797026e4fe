"""What the handlers of AWS Lambda functions have in common: the pipeline file, the log, the metrics, and errors in words."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import uvloop

from stream import events
from stream.clock import SystemClock
from stream.contracts import Emit
from stream.errors import DefinitionError, Halted, StreamError, unforeseen
from stream.metrics.embedded import EmbeddedMetrics
from stream.metrics.logs import JsonLog, Level
from stream.pipeline.checks.host_names import Host
from stream.pipeline.checks.lint import check
from stream.pipeline.model import Pipeline


class Context(Protocol):
    """What Lambda says about an invocation, as far as it is used."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is stopped by force."""
        ...


class Handler(ABC):
    """One execution environment, opened by its first invocation and used by all that follow. Lambda ends it without a word."""

    host: Host
    """What kind of function it is: a pipeline that it cannot run is refused by the first invocation."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.clock = SystemClock()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._log: JsonLog | None = None
        self._metrics: EmbeddedMetrics | None = None

    def __call__(self, event: Any, context: Context) -> dict[str, Any]:
        """The answer to ``event``.

        Raises:
            StreamError: nothing could be done; the message says why. Whoever sent the event repeats the invocation.
        """
        seconds = context.get_remaining_time_in_millis() / 1000
        try:
            return self._runner.run(self.answer(event, seconds))
        except StreamError as error:
            self._report(error, str(error))
            # Lambda logs the error with its trace, which is of no use for an error that says what is wrong.
            raise error.with_traceback(None) from None
        except Exception as error:
            self._report(error, unforeseen(error))
            raise
        finally:
            if self._metrics is not None:
                self._metrics.flush()
            if self._log is not None:
                self._log.flush()

    @abstractmethod
    async def answer(self, event: Any, seconds: float) -> dict[str, Any]:
        """The answer to ``event``, with so many ``seconds`` to go; raises as a call does."""

    async def shut(self) -> None:  # noqa: B027 - there may be nothing to close
        """Close what invocations share."""

    def close(self) -> None:
        """Close connections and the event loop."""
        self._runner.run(self.shut())
        self._runner.close()

    @property
    def file(self) -> Path:
        """The pipeline file."""
        return Path(self.env.get("STREAM_PIPELINE") or Path(self.env.get("LAMBDA_TASK_ROOT", ".")) / "pipeline.yaml")

    def open(self) -> tuple[Pipeline, tuple[Emit, Emit]]:
        """The pipeline, and what its events go to: the log and the metrics.

        Raises:
            DefinitionError: this kind of function cannot run it.
        """
        self._log = JsonLog(_to_stderr, self.clock, self._level())
        pipeline = self._checked()
        self._metrics = EmbeddedMetrics(pipeline.application, _to_stdout, self.clock)
        return pipeline, (self._log, self._metrics)

    def _checked(self) -> Pipeline:
        # On another machine than Lambda's, a local folder is as good a place as any.
        on_lambda = self.host is not Host.FUNCTION or "AWS_LAMBDA_FUNCTION_NAME" in self.env
        checked = check(self.file, self.env, self.host if on_lambda else Host.SERVICE)
        if checked.pipeline is None:
            msg = "the pipeline cannot be run:\n" + "\n".join(finding.render() for finding in checked.findings)
            raise DefinitionError(msg)
        return checked.pipeline

    def _level(self) -> Level:
        name = self.env.get("STREAM_LOG_LEVEL", Level.INFO.name).upper()
        if name not in Level.__members__:
            msg = f"STREAM_LOG_LEVEL is {name.lower()}; it may be {', '.join(level.name.lower() for level in Level)}"
            raise DefinitionError(msg)
        return Level[name]

    def _report(self, error: Exception, reason: str) -> None:
        if self._log is not None and not isinstance(error, Halted):
            self._log(events.WorkerFailed("", "", reason))


def _to_stderr(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()


def _to_stdout(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
