"""Workers of the real Java KCL, whose record processors keep what they received."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kcl.jars import jars

CHILD = Path(__file__).with_name("child.py")
GRACE_SECONDS = 10
PATIENCE = 180.0
"""Seconds; on an empty lease table the KCL waits up to half a minute before it makes rows."""

CREDENTIALS = {
    "2.5.8": "AWSCredentialsProvider = DefaultAWSCredentialsProviderChain",
    "3.1.3": "AwsCredentialsProvider = DefaultCredentialsProvider",
}
PROPERTIES = """
executableName = {python} {child} {notes}
applicationName = {application}
streamName = {stream}
regionName = us-east-1
{credentials}
processingLanguage = python/3.11
kinesisEndpoint = {kinesis}
dynamoDBEndpoint = {dynamodb}
initialPositionInStream = TRIM_HORIZON
workerId = {worker}
metricsLevel = NONE
retrievalMode = POLLING
idleTimeBetweenReadsInMillis = 250
failoverTimeMillis = {failover}
shardSyncIntervalMillis = 3000
parentShardPollIntervalMillis = 500
shutdownGraceMillis = {grace}
"""
LOGBACK = """<configuration><appender name="E" class="ch.qos.logback.core.ConsoleAppender">
<target>System.err</target><encoder><pattern>%d{ISO8601} %-5level %logger{20} %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="E"/></root></configuration>"""


class JavaWorker:
    """One daemon; everything it writes is in ``folder``."""

    def __init__(
        self, folder: Path, version: str, worker: str, environment: Mapping[str, str], stream: str, application: str, failover: int = 6000
    ) -> None:
        self.notes = folder / f"{worker}.notes"
        self.log = folder / f"{worker}.log"
        home = folder / worker
        home.mkdir()
        (home / "logback.xml").write_text(LOGBACK)
        text = PROPERTIES.format(
            python=sys.executable,
            child=CHILD,
            notes=self.notes,
            application=application,
            stream=stream,
            credentials=CREDENTIALS[version],
            kinesis=environment["AWS_ENDPOINT_URL_KINESIS"],
            dynamodb=environment["AWS_ENDPOINT_URL_DYNAMODB"],
            worker=worker,
            failover=failover,
            grace=GRACE_SECONDS * 1000,
        )
        (home / "app.properties").write_text(text)
        classes = f"{home}:{jars(version)}/*"
        keys = {"PATH": os.environ["PATH"], "JAVA_TOOL_OPTIONS": "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1", **environment}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                ["java", "-cp", classes, "software.amazon.kinesis.multilang.MultiLangDaemon", "-p", "app.properties"],
                cwd=home,
                env=keys,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def batches(self) -> list[dict[str, Any]]:
        """What its processors have recorded, in order, without a line that is still being written."""
        text = self.notes.read_text() if self.notes.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def records(self, what: str = "records") -> list[tuple[str, int, int, bytes]]:
        """Shard, sequence number, sub-sequence number and data of everything that they received, or have ``checkpointed``."""
        noted = [(batch["shard"], each) for batch in self.batches() if batch["what"] == what for each in batch["records"]]
        return [(shard, int(sequence), sub, base64.b64decode(data)) for shard, (sequence, sub, data) in noted]

    def until(self, condition: Callable[[], Any]) -> None:
        """Return once ``condition`` holds."""
        for _ in range(int(PATIENCE / 0.1)):
            if condition():
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                raise AssertionError(f"Java ended with {self.process.returncode}:\n{self.said()[-6000:]}")
        raise AssertionError(f"Java does not get there:\n{self.said()[-6000:]}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after a grace period, as a supervisor does: KCL 2.x waits for ever if it holds ended shards."""
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS + 5.0)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to Java and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
