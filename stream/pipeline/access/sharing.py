"""What the owners of streams in other accounts have to allow: the resource policies of these streams and of their consumers. Pure.

Access from another account needs both: this policy, and the worker's own (``access``). Which actions such policies may have:
https://docs.aws.amazon.com/streams/latest/dev/controlling-access.html
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from stream.pipeline.access.actions import READ_STREAM, REGISTER, SUBSCRIBE, Account
from stream.pipeline.model import Pipeline, Retrieval
from stream.stream_ids import parse

Document: TypeAlias = dict[str, Any]
CREATED: Final = "CREATED"
"""Stands in the ARN of a consumer for the number that is known once it is registered."""


def resource_policies(pipeline: Pipeline, account: Account) -> dict[str, Document]:
    """The policy for each stream that another account than ``account`` has, and for its consumer, by the ARN of the resource.

    They let ``account`` itself in, so that its own policies say which of its roles may read.
    """
    kinesis, found = pipeline.source.kinesis, {}
    pushed = kinesis.retrieval is Retrieval.FAN_OUT
    for name in () if pipeline.source.s3 is not None else kinesis.names:
        shared = parse(name)
        if shared is None or shared.account == account.number:
            continue
        found[shared.arn] = _policy(shared.arn, (*READ_STREAM, *REGISTER) if pushed else READ_STREAM, account)
        if pushed:
            consumer = f"{shared.arn}/consumer/{kinesis.consumer or pipeline.application}:{CREATED}"
            found[consumer] = _policy(consumer, SUBSCRIBE, account)
    return found


def _policy(resource: str, actions: tuple[str, ...], account: Account) -> Document:
    principal = f"arn:{account.partition}:iam::{account.number}:root"
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": sorted(actions), "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [{"Sid": "Read", **statement}]}
