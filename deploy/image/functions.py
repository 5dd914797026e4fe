"""The image for Lambda under runc, with AWS's runtime interface client and a Runtime API on loopback, as both kinds of function."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any, Final

import boto3
from container import PIPELINE, Storage, container, fresh, insist

from stream.local.aws import LocalClients
from stream.local.comparison import judge
from stream.local.flights import flights_table, produce
from stream.local.start import LocalAws
from tests.invocations import event_of, held
from tests.runtime_api import PATIENCE, RuntimeApi
from tests.transformations import asked, delivered

FLIGHTS: Final = 20_000
FOR_FIREHOSE: Final = 2_000
"""Records of one event: about 600 KB."""

MASK_KEY: Final = "a key of this check only"
NOBODY: Final = "993:990"
"""Lambda runs an image as a user of its own, whom the image does not know."""

MOST_BYTES: Final = 10 * 2**30
"""Lambda's limit for an image."""

SCHEDULED: Final = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}


@dataclass
class Functions:
    """Runs the image with the demo's pipeline. ``figures``: what was measured."""

    storage: Storage
    root: Path
    work: Path
    figures: dict[str, str] = field(default_factory=dict)

    def check(self) -> dict[str, str]:
        """Everything about the image for Lambda; ends the process at the first thing that does not hold. Returns the figures."""
        size = sum(each.lstat().st_size for each in self.root.rglob("*") if each.is_file())
        insist(size < MOST_BYTES, f"target lambda: {size / 2**20:.0f} MiB on disk, and Lambda takes {MOST_BYTES >> 20} MiB")
        (command,) = self.storage.config("localhost/stream:lambda")["Cmd"]
        insist(command == "stream.function.handler", f"target lambda: the command is {command}")
        self._stream(command)
        self._firehose("stream.firehose.handler")
        return self.figures

    def _stream(self, handler: str) -> None:
        """A function with a mapping: told about the last record of each shard, then called by a schedule."""
        with ExitStack() as stack:
            folder = fresh(self.work / "function" / "files")
            environment = stack.enter_context(LocalAws(logs=folder.parent / "logs")).environment()
            clients = stack.enter_context(LocalClients(environment))
            clients.create_bucket("lake")
            clients.create_stream("flights", 2)
            where = environment["AWS_ENDPOINT_URL_KINESIS"], environment["AWS_REGION"]
            made = produce(*where, "flights", flights_table().head(FLIGHTS), 1, lambda _: None)
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
            kinesis = boto3.client("kinesis", endpoint_url=where[0], region_name=where[1], **keys)
            stack.callback(kinesis.close)
            told = [
                event_of("flights", name, held(kinesis, "flights", name)[-1:]) for name in ("shardId-000000000000", "shardId-000000000001")
            ]
            variables = environment | {"MASK_KEY": MASK_KEY, "STREAM": "flights"}
            with self._invoked(handler, folder, variables) as invoke:
                for event in told:
                    insist(invoke(event) == {"batchItemFailures": []}, "target lambda: everything that it was told about is sealed")
                insist(invoke(SCHEDULED) == {"left": []}, "target lambda: a scheduled invocation leaves nothing")
            lake = folder.parent / "lake"
            clients.copy_bucket("lake", lake)
        ledger = lake / "_stream" / "flights" / "ledger"
        for finding in judge(lake / "flights", ledger, rows=made.flights, broken=made.broken, mask_key=MASK_KEY.encode()):
            insist(finding.good, f"target lambda: {finding.what}: expected {finding.expected}, found {finding.found}")

    def _firehose(self, handler: str) -> None:
        """The same image and file as a function of Firehose; nothing but its own event and answer is there."""
        flights = flights_table().head(FOR_FIREHOSE)
        contents = [*flights.write_ndjson().encode().splitlines(), b"{"]
        event = asked(contents, "flights")
        with self._invoked(handler, fresh(self.work / "firehose" / "files"), {"MASK_KEY": MASK_KEY}) as invoke:
            counts = Counter(result for result, _, _ in delivered(event, invoke(event)))
        dropped = flights["dep_time"].null_count()
        wanted = {"Ok": FOR_FIREHOSE - dropped, "Dropped": dropped, "ProcessingFailed": 1}
        insist(counts == wanted, f"target lambda, for Firehose: the answers are {dict(counts)}")

    @contextmanager
    def _invoked(self, handler: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Any]:
        """A function that invokes the image with ``handler`` for an event and returns the answer; an error of it ends the check."""
        shutil.copy(str(files("stream.data") / "flights.yaml"), folder / "pipeline.yaml")
        image = self.storage.config("localhost/stream:lambda") | {"User": NOBODY}
        name = handler.split(".")[1]
        with RuntimeApi() as api:
            variables = {
                "AWS_LAMBDA_RUNTIME_API": api.place,
                "AWS_LAMBDA_FUNCTION_NAME": "flights",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
                "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/flights",
                "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/26/[$LATEST]image",
                "LAMBDA_TASK_ROOT": PIPELINE,
                "_HANDLER": handler,
            }
            begun = monotonic()
            with container(name, self.root, image, [handler], {**environment, **variables}, folder):
                insist(api.ready.wait(PATIENCE), f"target lambda: {handler} is initialized")
                self.figures[f"start to initialized, {handler}"] = f"{monotonic() - begun:.2f} s"
                log = folder.parent / f"{name}.log"

                def invoke(event: Any) -> Any:
                    at = monotonic()
                    api.invocations.put(("one", json.dumps(event).encode()))
                    _, answer = api.answers.get(timeout=PATIENCE)
                    self.figures.setdefault(f"first invocation, {handler}", f"{monotonic() - at:.2f} s")
                    insist(answer.ok, f"target lambda: {handler} answers{'' if answer.ok else f': {answer.body}; see {log}'}")
                    return answer.body

                yield invoke
