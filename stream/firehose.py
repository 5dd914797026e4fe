"""The handler of a Lambda function that transforms records for Amazon Data Firehose: ``stream.firehose.handler``. See docs/firehose.md.

``STREAM_PIPELINE`` names the pipeline file; by default, pipeline.yaml in the function's folder. ``STREAM_LOG_LEVEL``: as for `stream run`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stream.errors import DefinitionError
from stream.handler import Handler
from stream.hosts.transforming import Transformer
from stream.pipeline.checks.host_names import Host
from stream.source.transformation import is_transformation


class FirehoseHandler(Handler):
    """Transforms the records of each event with the pipeline's decoder and stages."""

    host = Host.FIREHOSE

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__(env)
        self._transformer: Transformer | None = None

    async def answer(self, event: Any, seconds: float) -> dict[str, Any]:
        """What became of each record of ``event``, in its order.

        Raises:
            StreamError: nothing could be done. Firehose repeats the invocation a few times, and then gives the records up as failed.
        """
        if not is_transformation(event):
            msg = (
                "the event does not come from a Firehose stream with a data transformation (it has no deliveryStreamArn); nothing was done"
            )
            raise DefinitionError(msg)
        if self._transformer is None:
            pipeline, listeners = self.open()
            self._transformer = Transformer(pipeline, self.file.parent, self.env, self.clock, listeners)
        return await self._transformer.answer(event, seconds)


handler = FirehoseHandler(os.environ)
