"""The MultiLangDaemon's properties file for a pipeline."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stream.contracts import StartKind
from stream.errors import DefinitionError
from stream.pipeline.coordination import kcl_applications
from stream.pipeline.model import Pipeline, Retrieval

GRACE_MILLIS: Final = 25_000
"""Time for the last unit after SIGTERM; with 0, the KCL's default, the child is never asked to drain."""


CREDENTIALS: Final = {
    2: {"AWSCredentialsProvider": "DefaultAWSCredentialsProviderChain"},
    3: {"AwsCredentialsProvider": "DefaultCredentialsProvider"},
}
"""The credentials provider's name by major version of the KCL; neither version accepts the other's name."""


def properties(pipeline: Pipeline, file: Path, env: Mapping[str, str], changes: Mapping[str, str], kcl: int = 3) -> str:
    """The properties with which a daemon of version ``kcl`` runs ``stream kcl run`` on ``file`` for each shard.

    ``changes`` replace or add properties.

    ``pipeline`` reads one stream. Endpoints come from the pipeline and from AWS_ENDPOINT_URL_KINESIS and _DYNAMODB in ``env``.

    Raises:
        DefinitionError: a path contains a space, where the daemon would split the command.
    """
    kinesis = pipeline.source.kinesis
    command = [sys.executable, "-m", "stream", "kcl", "run", str(file.resolve())]
    if kinesis.streams:
        command += ["--stream", kinesis.stream]
    if broken := [word for word in command if any(sign.isspace() for sign in word)]:
        msg = f"the MultiLangDaemon splits its command at spaces, so {broken[0]!r} cannot be run; move it to a path without spaces"
        raise DefinitionError(msg)
    wanted: dict[str, str | None] = {
        "executableName": " ".join(command),
        "applicationName": kcl_applications(pipeline.application, (kinesis.stream,), several=bool(kinesis.streams))[0],
        "streamName": kinesis.stream,
        "regionName": kinesis.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"),
        **CREDENTIALS[3 if kcl >= 3 else 2],
        "processingLanguage": f"python/{sys.version_info.major}.{sys.version_info.minor}",
        "kinesisEndpoint": kinesis.endpoint or env.get("AWS_ENDPOINT_URL_KINESIS"),
        "dynamoDBEndpoint": env.get("AWS_ENDPOINT_URL_DYNAMODB"),
        **_position(pipeline),
        **_retrieval(pipeline),
        # A checkpoint can only answer a request; without empty requests, a quiet shard would never be checkpointed.
        "callProcessRecordsEvenForEmptyRecordList": "true",
        "shutdownGraceMillis": str(GRACE_MILLIS),
        "metricsLevel": "NONE",
    }
    lines = {key: value for key, value in wanted.items() if value is not None} | dict(changes)
    return "".join(f"{key} = {_escaped(value)}\n" for key, value in lines.items())


def _position(pipeline: Pipeline) -> dict[str, str]:
    start = pipeline.source.kinesis.start
    if start.kind is StartKind.AT_TIMESTAMP and start.timestamp is not None:
        return {"initialPositionInStreamExtended": str(int(start.timestamp.timestamp()))}
    return {"initialPositionInStream": start.kind.value.upper()}


def _retrieval(pipeline: Pipeline) -> dict[str, str]:
    kinesis = pipeline.source.kinesis
    if kinesis.retrieval is Retrieval.FAN_OUT:
        return {"retrievalMode": "FANOUT", "fanoutConfig.consumerName": kinesis.consumer or pipeline.application}
    return {"retrievalMode": "POLLING", "idleTimeBetweenReadsInMillis": "1000"}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")
