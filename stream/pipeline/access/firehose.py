"""What a Firehose stream and its function may do under the names that ``examples/firehose`` uses. Pure.

Permissions of Firehose: https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from stream.pipeline.access.actions import LIST, READ_STREAM, REFERENCE, UNLOCK, Access, Account, arn, names_secret, writing
from stream.pipeline.checks.host_names import Host
from stream.pipeline.checks.hosts import misfits
from stream.pipeline.findings import Severity
from stream.pipeline.model import Pipeline

WRITE_LOG: Final = ("logs:CreateLogStream", "logs:PutLogEvents")

_READ: Final = ("kinesis:DescribeStream", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards")
_DELIVER: Final = ("s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject")
_BUCKET: Final = ("s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads")
_INVOKE: Final = ("lambda:GetFunctionConfiguration", "lambda:InvokeFunction")


def function_name(application: str) -> str:
    """The name of the function that transforms the records."""
    return f"{application}-transform"


def failed_prefix(application: str) -> str:
    """Where Firehose writes what it could not process: in the bucket of the sink, outside of it, so that no reader takes it for rows."""
    return f"failed/{application}/"


def can_run(pipeline: Pipeline) -> bool:
    """Whether a function under Firehose can run the pipeline."""
    return all(each.severity is not Severity.ERROR for each in misfits(pipeline, Host.FIREHOSE))


def transforming(pipeline: Pipeline, needs: Iterable[Access], account: Account) -> Iterator[Access]:
    """What the function does: it reads the tables and secrets of the stages, and writes its log, and touches neither stream nor files."""
    if not can_run(pipeline):
        return
    secrets = [name for stage in pipeline.stages for name in stage.secret_names()]
    for each in needs:
        if each.why == REFERENCE or (each.why == UNLOCK and any(names_secret(resource, secrets) for resource in each.resources)):
            yield each
    yield Access("logs", WRITE_LOG, (log_group(account, f"/aws/lambda/{function_name(pipeline.application)}"),), "write the function's log")


def delivering(pipeline: Pipeline, needs: Iterable[Access], account: Account) -> Iterator[Access]:
    """What Firehose itself does: it reads the stream, invokes the function, and writes files."""
    if not can_run(pipeline):
        return
    application, region = pipeline.application, pipeline.source.kinesis.region
    for each in needs:
        if each.actions == READ_STREAM:
            yield Access("kinesis", _READ, each.resources, "read the stream")
        elif each.why == writing(pipeline.sinks[0].name) and each.actions == LIST:
            yield Access("s3", _BUCKET, each.resources, "deliver")
            failed = tuple(f"{bucket}/{failed_prefix(application)}*" for bucket in each.resources)
            yield Access("s3", _DELIVER, failed, "deliver what failed")
        elif each.why == writing(pipeline.sinks[0].name):
            yield Access("s3", _DELIVER, each.resources, "deliver")
    name = arn(account, region, "lambda", f"function:{function_name(application)}")
    yield Access("lambda", _INVOKE, (name, f"{name}:*"), "invoke the function")
    yield Access("logs", WRITE_LOG[1:], (log_group(account, f"/aws/kinesisfirehose/{application}"),), "log errors of delivery")


def log_group(account: Account, name: str) -> str:
    """The ARN of a log group and all that is in it."""
    return f"arn:{account.partition}:logs:{account.region}:{account.number}:log-group:{name}:*"
