"""Least-privilege IAM policies for a pipeline, one per role, and each role's trust policy. Pure: derived from the definition alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from stream.commit.compaction import CURSORS
from stream.commit.compaction import FOLDER as COMPACTIONS
from stream.errors import DefinitionError
from stream.lease.pauses import FOLDER
from stream.pipeline.access.actions import (
    CATALOG,
    CREATE_TABLE,
    EXECUTE,
    EXECUTE_ONE,
    FLEET,
    GET_TABLE,
    JOIN_FLEET,
    KEEP_LOG,
    LEASES,
    LIST,
    MAP_STREAM,
    OBJECTS,
    READ_OBJECTS,
    READ_STREAM,
    RECEIVE,
    REGISTER,
    SEE_FLEET,
    SHARE,
    SUBSCRIBE,
    UNLOCK,
    Access,
    Account,
    below,
    loading,
    names_secret,
    needed,
    writing,
)
from stream.pipeline.access.firehose import WRITE_LOG, delivering, log_group, transforming
from stream.pipeline.access.role_names import AUDIENCE, Role
from stream.pipeline.compacting import beside, compactable
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import is_remote
from stream.sink.tables import TableSinkConfig

Document: TypeAlias = dict[str, Any]
"""A policy document in the form that IAM accepts."""

VERSION: Final = "2012-10-17"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The Kubernetes service account whose pods assume the worker roles.

    ``cluster``: name of the EKS cluster, for Pod Identity; empty for any. ``issuer``: URL of the cluster's OIDC provider; if given, the
    trust policy is for IRSA.
    """

    namespace: str
    name: str
    cluster: str = ""
    issuer: str = ""
    audience: str = AUDIENCE


_KCL_TABLES: Final = {SEE_FLEET, JOIN_FLEET}
"""Purposes of access to tables that a KCL beside our workers creates, so that ``bootstrap`` need not."""

_OF_SERVICES: Final[Mapping[Role, Any]] = {
    Role.REDSHIFT_COPY: ["redshift.amazonaws.com", "redshift-serverless.amazonaws.com"],
    Role.FUNCTION: "lambda.amazonaws.com",
    Role.TRANSFORM: "lambda.amazonaws.com",
    Role.FIREHOSE: "firehose.amazonaws.com",
}
"""The services that assume a role for this account."""

_DECRYPTING: Final = ("dynamodb", "glue", "kinesis", "s3", "secretsmanager", "sns", "sqs")
"""Services that use a KMS key with the permissions of their caller."""

_PARTITIONS: Final = {
    "cn": "aws-cn",
    "us-gov": "aws-us-gov",
    "eusc": "aws-eusc",
    "us-iso": "aws-iso",
    "us-isob": "aws-iso-b",
    "eu-isoe": "aws-iso-e",
    "us-isof": "aws-iso-f",
}
"""By how the names of their regions begin, before a hyphen."""

_CREATE_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "kinesis": (
        "kinesis:AddTagsToStream",
        "kinesis:CreateStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:IncreaseStreamRetentionPeriod",
        "kinesis:StartStreamEncryption",
    ),
    "s3": (
        "s3:CreateBucket",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketPolicy",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketVersioning",
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
    ),
    "dynamodb": ("dynamodb:CreateTable", "dynamodb:DescribeTable", "dynamodb:TagResource", "dynamodb:UpdateContinuousBackups"),
}
"""Actions that create the resources a worker expects to exist, by service."""


def accesses(pipeline: Pipeline, role: Role, account: Account) -> tuple[Access, ...]:
    """What ``role`` must be allowed to do; empty if the pipeline has no use for the role."""
    needs = needed(pipeline, account)
    found: Mapping[Role, Callable[[], Iterable[Access]]] = {
        Role.WORKER: lambda: (each for each in needs if not _creates_table(each)),
        Role.BOOTSTRAP: lambda: _creation(needs, account),
        Role.REDSHIFT_COPY: lambda: _copy(pipeline, needs),
        Role.BACKFILL: lambda: filter(_backfills, needs),
        Role.READER: lambda: _reading(pipeline, needs),
        Role.ANALYST: lambda: _querying(pipeline, needs, account),
        Role.FUNCTION: lambda: _invoked(pipeline, needs, account),
        Role.TRANSFORM: lambda: transforming(pipeline, needs, account),
        Role.FIREHOSE: lambda: delivering(pipeline, needs, account),
        Role.OPERATOR: lambda: _operating(needs),
        Role.COMPACTOR: lambda: _compacting(pipeline, needs, account),
    }
    return tuple(found[role]())


def policy(needs: Iterable[Access], keys: Iterable[str] = (), region: str = "*", partition: str = "aws") -> Document:
    """A policy that allows exactly ``needs``, and the use of the KMS ``keys`` (ARNs) through the services that need them."""
    needs = tuple(needs)
    statements: list[Document] = []
    for number, (service, allowed, resources, prefixes) in enumerate(_merged(needs), 1):
        statement: Document = {
            "Sid": f"{service.title().replace('-', '')}Statement{number}",
            "Effect": "Allow",
            "Action": list(allowed),
            "Resource": resources,
        }
        if prefixes:
            statement["Condition"] = {"StringLike": {"s3:prefix": prefixes}}
        statements.append(statement)
    if key_arns := sorted(keys):
        suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
        services = [f"{service}.{region}.{suffix}" for service in _DECRYPTING if _uses(needs, service)]
        actions = ["kms:Decrypt", "kms:GenerateDataKey"] if _writes(needs) else ["kms:Decrypt"]
        condition = {"StringLike" if region == "*" else "StringEquals": {"kms:ViaService": services}}
        statements.append({"Sid": "Keys", "Effect": "Allow", "Action": actions, "Resource": key_arns, "Condition": condition})
    return {"Version": VERSION, "Statement": statements}


def trust(role: Role, account: Account, who: ServiceAccount) -> Document:
    """The trust policy of ``role``: the pods of one service account, an AWS service, or for ``bootstrap`` whoever the account authorizes.

    Raises:
        DefinitionError: the issuer is not an https URL.
    """
    if role in _OF_SERVICES:
        return _trusted({"Service": _OF_SERVICES[role]}, ["sts:AssumeRole"], _of_account(role, account))
    if role is Role.BOOTSTRAP:
        return _trusted({"AWS": f"arn:{account.partition}:iam::{account.number}:root"}, ["sts:AssumeRole"], {})
    if who.issuer:
        parts = urlsplit(who.issuer)
        if parts.scheme != "https" or not parts.hostname:
            msg = f"the OIDC issuer {who.issuer!r} is not an https URL; `aws eks describe-cluster` names it under identity.oidc.issuer"
            raise DefinitionError(msg)
        issuer = who.issuer.removeprefix("https://").rstrip("/")
        provider = f"arn:{account.partition}:iam::{account.number}:oidc-provider/{issuer}"
        # StringEquals on both claims: with a pattern, or without a subject, any pod of the cluster could assume the role.
        claims = {f"{issuer}:aud": who.audience, f"{issuer}:sub": f"system:serviceaccount:{who.namespace}:{who.name}"}
        return _trusted({"Federated": provider}, ["sts:AssumeRoleWithWebIdentity"], {"StringEquals": claims})
    tags = {
        "aws:SourceAccount": account.number,
        "aws:RequestTag/kubernetes-namespace": who.namespace,
        "aws:RequestTag/kubernetes-service-account": who.name,
    }
    if who.cluster:
        tags["aws:RequestTag/eks-cluster-name"] = who.cluster
    return _trusted({"Service": "pods.eks.amazonaws.com"}, ["sts:AssumeRole", "sts:TagSession"], {"StringEquals": tags})


def partition_of(region: str) -> str:
    """The AWS partition of a region, as ARNs name it."""
    return next((name for prefix, name in _PARTITIONS.items() if region.startswith(f"{prefix}-")), "aws")


def _merged(needs: Iterable[Access]) -> Iterator[tuple[str, tuple[str, ...], list[str], list[str]]]:
    """``needs`` in as few statements as possible: listings merged per bucket, everything else per set of actions."""
    groups: dict[tuple[Any, ...], list[Access]] = {}
    for each in needs:
        groups.setdefault((each.service, each.actions, each.resources if each.prefixes else None), []).append(each)
    for group in groups.values():
        resources = {name for each in group for name in each.resources}
        prefixes = {name for each in group for name in each.prefixes}
        yield group[0].service, group[0].actions, sorted(resources), sorted(prefixes)


def _creation(needs: Iterable[Access], account: Account) -> Iterator[Access]:
    """The creation of what ``needs`` refer to in ``account``; streams that another account shares are there already."""
    to_create: dict[str, set[str]] = {}
    for each in needs:
        if each.service in _CREATE_ACTIONS and each.why not in _KCL_TABLES:
            created = (resource.partition("/")[0] if each.service == "s3" else resource for resource in each.resources)
            to_create.setdefault(each.service, set()).update(
                resource for resource in created if not _made_by_aws(resource) and _is_of(resource, account)
            )
    for service, resources in to_create.items():
        if not resources:
            continue
        yield Access(service, _CREATE_ACTIONS[service], tuple(sorted(resources)), "make what workers need")


def _is_of(resource: str, account: Account) -> bool:
    """Whether the ARN names something of ``account``, as far as streams are concerned."""
    parts = resource.split(":")
    return parts[2] != "kinesis" or parts[4] == account.number


def _creates_table(access: Access) -> bool:
    """Whether this is the creation of a table, which a worker only does if ``bootstrap`` has not."""
    return access.actions == CREATE_TABLE


def _backfills(access: Access) -> bool:
    """Whether a backfill needs this too: it reads objects, and has the shards for itself."""
    return access.service not in {"kinesis", "sqs"} and not _creates_table(access) and access.why != FLEET


def _made_by_aws(resource: str) -> bool:
    """Whether AWS creates this resource itself, together with another one."""
    return "/consumer/" in resource or "/index/" in resource


def _copy(pipeline: Pipeline, needs: Iterable[Access]) -> Iterator[Access]:
    """What COPY needs: Redshift reads the staged files, and nothing else in the buckets."""
    whys = {writing(sink.name) for sink in pipeline.sinks if sink.kind == "redshift" and is_remote(sink.url)}
    for each in needs:
        if each.why in whys:
            actions = LIST if each.actions == LIST else ("s3:GetObject",)
            yield Access("s3", actions, each.resources, "let Redshift copy", each.prefixes)


RECORDS: Final = (COMPACTIONS, CURSORS)
"""The folders of the state that ``stream compact`` writes."""

_READ_ACTIONS: Final = {
    OBJECTS: ("s3:GetObject",),
    LEASES: ("dynamodb:GetItem", "dynamodb:Scan"),
    RECEIVE: ("sqs:GetQueueAttributes",),
    EXECUTE: EXECUTE_ONE,
    CATALOG: GET_TABLE,
    CATALOG[1:]: GET_TABLE,
}
"""Which of a worker's actions are enough for a role that only reads."""


def _reading(pipeline: Pipeline, needs: Iterable[Access]) -> Iterator[Access]:
    """What ``stream status``, ``complete`` and ``shards`` read: the stream, the log, the leases, and the tables' records of their loads.

    Of objects they read no content, only the listing, and of the queue its attributes.
    """
    tables = [sink for sink in pipeline.sinks if isinstance(sink, TableSinkConfig)]
    whys = {KEEP_LOG, SHARE, *(loading(sink.name) for sink in tables), *(writing(sink.name) for sink in tables if sink.keeps_files)}
    secrets = [name for sink in tables for name in sink.secret_names()]
    for each in needs:
        if each.actions in {READ_STREAM, RECEIVE} or each.why in whys or (each.why == READ_OBJECTS and each.actions == LIST):
            yield replace(each, actions=_READ_ACTIONS.get(each.actions, each.actions), why="ask how the stream stands")
        elif each.why == UNLOCK and any(names_secret(resource, secrets) for resource in each.resources):
            yield each


def _querying(pipeline: Pipeline, needs: Iterable[Access], account: Account) -> Iterator[Access]:
    """What ``stream query`` needs: to read the stream or the objects, the log, checkpoints, files of sinks, and secrets of stages.

    Reference tables are in the log, as units were committed with them.
    """
    sinks = {writing(sink.name) for sink in pipeline.sinks}
    logins = {name for stage in pipeline.stages for name in stage.table_logins().values()}
    secrets = [name for stage in pipeline.stages for name in stage.secret_names() if name not in logins]
    for each in needs:
        if each.actions == READ_STREAM or each.why in {KEEP_LOG, SHARE, READ_OBJECTS, *sinks}:
            actions = ("dynamodb:GetItem",) if each.actions == LEASES else _READ_ACTIONS.get(each.actions, each.actions)
            yield replace(each, actions=actions, why="ask what was produced")
        elif each.why == UNLOCK and any(names_secret(resource, secrets) for resource in each.resources):
            yield each
    with suppress(DefinitionError):  # nothing can be compacted, or a whole bucket has no place beside it
        for sink in compactable(pipeline, None):
            yield from below(beside(sink.url), account, "ask what was produced")


def _invoked(pipeline: Pipeline, needs: Iterable[Access], account: Account) -> Iterator[Access]:
    """What a Lambda function needs, and what Lambda does for it under the same role: read the stream, and write its log.

    A function has no leases, and the consumer of enhanced fan-out to which it may be mapped is registered by others.
    """
    if pipeline.source.s3 is not None:
        return
    for each in needs:
        if each.service == "dynamodb" or each.actions == REGISTER:
            continue
        actions = {READ_STREAM: MAP_STREAM, SUBSCRIBE: SUBSCRIBE[1:]}.get(each.actions, each.actions)
        yield replace(each, actions=actions)
    yield Access("logs", WRITE_LOG, (log_group(account, f"/aws/lambda/{pipeline.application}"),), "write the function's log")


def _operating(needs: Iterable[Access]) -> Iterator[Access]:
    """What ``stream pause`` and ``stream resume`` need: to read the log and the stream, for figures, and to write the pauses."""
    for each in needs:
        if each.actions == READ_STREAM or each.why in {KEEP_LOG, SHARE}:
            actions = ("dynamodb:GetItem",) if each.actions == LEASES else _READ_ACTIONS.get(each.actions, each.actions)
            yield replace(each, actions=actions, why="ask how the stream stands")
        if each.why == KEEP_LOG and each.actions == OBJECTS:
            pauses = tuple(f"{resource.removesuffix('*')}{FOLDER}*" for resource in each.resources)
            yield Access("s3", ("s3:PutObject",), pauses, "pause and resume")


def _compacting(pipeline: Pipeline, needs: Iterable[Access], account: Account) -> Iterator[Access]:
    """What ``stream compact`` needs: to read the log, the stream's end and the files, to write compacted ones, and to delete."""
    try:
        sinks = [sink for sink in compactable(pipeline, None) if is_remote(sink.url)]
    except DefinitionError:
        return
    files = {writing(sink.name) for sink in sinks}
    for each in needs if sinks else ():
        if each.actions == READ_STREAM or each.why in {KEEP_LOG, SHARE}:
            actions = ("dynamodb:GetItem",) if each.actions == LEASES else _READ_ACTIONS.get(each.actions, each.actions)
            yield replace(each, actions=actions, why="ask which partitions are closed")
        if each.why == KEEP_LOG and each.actions == OBJECTS:
            records = tuple(f"{resource.removesuffix('*')}{folder}*" for resource in each.resources for folder in RECORDS)
            yield Access("s3", ("s3:PutObject",), records, "record what is compacted")
        if each.why in files:
            actions = LIST if each.actions == LIST else ("s3:DeleteObject", "s3:GetObject")
            yield replace(each, actions=actions, why="read what is compacted, and delete it later")
    for sink in sinks:
        with suppress(DefinitionError):  # a whole bucket has no place beside it
            yield from below(beside(sink.url), account, "write compacted files", OBJECTS)


def _of_account(role: Role, account: Account) -> Document:
    """The condition that a service assumes ``role`` for this account. Where documented, only in ``sts:ExternalId`` do they say for whom.

    https://docs.aws.amazon.com/redshift/latest/mgmt/authorizing-redshift-service-database-users.html: Redshift names the database user.
    https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html: Firehose names the account.
    """
    if role is Role.REDSHIFT_COPY:
        return {"StringLike": {"sts:ExternalId": f"arn:{account.partition}:redshift:*:{account.number}:dbuser:*"}}
    if role is Role.FIREHOSE:
        return {"StringEquals": {"sts:ExternalId": account.number}}
    return {"StringEquals": {"aws:SourceAccount": account.number}}


def _trusted(principal: Document, actions: list[str], conditions: Document) -> Document:
    statement: Document = {"Effect": "Allow", "Principal": principal, "Action": actions}
    if conditions:
        statement["Condition"] = conditions
    return {"Version": VERSION, "Statement": [statement]}


def _uses(needs: Iterable[Access], service: str) -> bool:
    return any(each.service == service for each in needs)


def _writes(needs: Iterable[Access]) -> bool:
    return any(action in {"s3:PutObject", "dynamodb:PutItem", "sns:Publish"} for each in needs for action in each.actions)
