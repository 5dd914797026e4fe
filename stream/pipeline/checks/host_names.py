"""The hosts that run a pipeline."""

from __future__ import annotations

from enum import StrEnum


class Host(StrEnum):
    """What runs a pipeline: workers, or an AWS Lambda function that is invoked for a Kinesis stream, or by Amazon Data Firehose."""

    SERVICE = "service"
    FUNCTION = "function"
    FIREHOSE = "firehose"
