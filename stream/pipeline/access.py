"""Which AWS actions a pipeline needs, on which resources: pure, from the definition alone.

Action names are those of the Service Authorization Reference
(https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from stream.pipeline.coordination import COORDINATOR_STATE, LEASE_INDEX, WORKER_STATS, kcl_applications
from stream.pipeline.model import Pipeline, Retrieval
from stream.pipeline.resources import is_remote
from stream.pipeline.secrets import SECRETS_MANAGER, references
from stream.sink.iceberg import CatalogType, IcebergSinkConfig
from stream.sink.redshift import RedshiftSinkConfig
from stream.transform.stages.enrich import REDSHIFT, SERVERS, Warehouse, warehouse

READ_STREAM: Final = ("kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards")
REGISTER: Final = ("kinesis:RegisterStreamConsumer",)
SUBSCRIBE: Final = ("kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard")
OBJECTS: Final = ("s3:DeleteObject", "s3:GetObject", "s3:PutObject")
LEASES: Final = (
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Scan",
    "dynamodb:UpdateItem",
)
REPORTS: Final = ("dynamodb:DeleteItem", "dynamodb:Scan", "dynamodb:UpdateItem")
MAKE: Final = ("dynamodb:CreateTable",)
DAEMON: Final = ("dynamodb:CreateTable", *LEASES, "dynamodb:UpdateTable")
"""The Java KCL makes its tables itself; 3.x gives the first one an index afterwards."""
LEADER: Final = tuple(f"dynamodb:{name}Item" for name in ("Delete", "Get", "Put", "Update"))
SEE_FLEET: Final = "see whether KCL 3.x owns the lease table, and who leads"
JOIN_FLEET: Final = "report to the leader of a KCL 3.x fleet"
FLEET: Final = "let workers under the KCL share the shards"
EXECUTE: Final = ("redshift-data:BatchExecuteStatement", "redshift-data:ExecuteStatement")
CATALOG: Final = ("glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable")
ASK: Final = ("redshift-data:ExecuteStatement",)
FOLLOW: Final = ("redshift-data:DescribeStatement", "redshift-data:GetStatementResult")
LIST: Final = ("s3:ListBucket",)
"""Also what makes S3 say of a missing object that it is missing (404) instead of denied (403)."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where a pipeline's resources live, as ARNs spell it; ``*`` stands for what the pipeline file does not say."""

    number: str = "*"
    region: str = "*"
    partition: str = "aws"


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """Actions that are needed on resources, and what for.

    ``prefixes``: with ``s3:ListBucket``, the keys that are listed, as the condition ``s3:prefix`` takes them.
    """

    service: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    why: str
    prefixes: tuple[str, ...] = ()


def needed(pipeline: Pipeline, account: Account | None = None) -> tuple[Access, ...]:
    """What a worker that runs ``pipeline`` must be allowed to do; nothing for places that are not on AWS.

    Keys of KMS come on top: where the stream, a bucket or a secret is encrypted with a key of your own, ``kms:Decrypt`` on it is needed
    too, and ``kms:GenerateDataKey`` for what is written. Of these keys a pipeline file names ``encryption.kms_key`` only.
    """
    where = account or Account()
    return (
        *_source(pipeline, where),
        *_places(pipeline, where),
        *_tables(pipeline, where),
        *_warehouses(pipeline, where),
        *_secrets(pipeline, where),
        *_leases(pipeline, where),
        *_daemon(pipeline, where),
        *_others(pipeline, where),
    )


def _source(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    kinesis, objects = pipeline.source.kinesis, pipeline.source.s3
    if objects is None:
        streams = tuple(_arn(where, kinesis.region, "kinesis", f"stream/{name}") for name in kinesis.names)
        yield Access("kinesis", READ_STREAM, streams, "read the stream")
        if kinesis.retrieval is Retrieval.FAN_OUT:
            # The ARN of a consumer ends in the second of its registration.
            consumers = tuple(f"{stream}/consumer/{kinesis.consumer or pipeline.application}:*" for stream in streams)
            yield Access("kinesis", REGISTER, streams, "register the consumer of enhanced fan-out")
            yield Access("kinesis", SUBSCRIBE, consumers, "subscribe to shards")
        return
    yield from _below(objects.url, where, "read the source's objects")
    if objects.manifest is not None and is_remote(objects.manifest):
        yield from _one(objects.manifest, where, "read the source's manifest")


def _others(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    for url in _distinct(url for url in pipeline.requires if is_remote(url)):
        bucket, key = _bucket(url)
        # S3 is asked for a list of the folder.
        yield Access("s3", LIST, (_s3(where, bucket),), "look for what is required", (key[: key.rfind("/") + 1],))
    if pipeline.notify.sns is not None:
        yield Access("sns", ("sns:Publish",), (pipeline.notify.sns,), "tell of halted shards")


def _below(url: str, where: Account, why: str) -> Iterator[Access]:
    """Reading every object below ``url``."""
    if is_remote(url):
        bucket, prefix = _bucket(url)
        prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        yield Access("s3", ("s3:GetObject",), (f"{_s3(where, bucket)}/{prefix}*",), why)
        yield Access("s3", LIST, (_s3(where, bucket),), why, (f"{prefix}*",))


def _one(url: str, where: Account, why: str) -> Iterator[Access]:
    """Reading the object at ``url``."""
    bucket, key = _bucket(url)
    yield Access("s3", ("s3:GetObject",), (f"{_s3(where, bucket)}/{key}",), why)
    yield Access("s3", LIST, (_s3(where, bucket),), why, (key,))


def _places(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    state = pipeline.state.rstrip("/") + f"/{pipeline.application}/"
    for url, why in ((state, "keep the commit log"), *((sink.url, f"write the files of sink {sink.name}") for sink in pipeline.sinks)):
        if is_remote(url):
            bucket, prefix = _bucket(url)
            prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
            yield Access("s3", OBJECTS, (f"{_s3(where, bucket)}/{prefix}*",), why)
            yield Access("s3", LIST, (_s3(where, bucket),), why, (f"{prefix}*",))


def _warehouses(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    region = pipeline.source.kinesis.region
    for sink in pipeline.sinks:
        if isinstance(sink, IcebergSinkConfig) and sink.catalog["type"] == CatalogType.GLUE:
            yield _cataloged(sink, (where, region))
        if not isinstance(sink, RedshiftSinkConfig):
            continue
        why = f"load the table of sink {sink.name}"
        place = Warehouse(sink.database, sink.cluster, sink.workgroup, sink.db_user)
        yield from _asked(place, EXECUTE, sink.secret_arn, (where, region), why)


def _cataloged(sink: IcebergSinkConfig, at: tuple[Account, str | None]) -> Access:
    """The table's entry in Glue. A database is made by a person: it says where tables lie, and who may see them."""
    where, region = at
    database, _, table = sink.table.partition(".")
    arns = tuple(_arn(where, region, "glue", name) for name in ("catalog", f"database/{database}", f"table/{database}/{table}"))
    return Access("glue", CATALOG if sink.create else CATALOG[1:], arns, f"load the table of sink {sink.name}")


def _asked(place: Warehouse, execute: tuple[str, ...], secret: str | None, at: tuple[Account, str | None], why: str) -> Iterator[Access]:
    """Running statements by the Data API."""
    where, region = at
    # A statement's id and a workgroup's are not known beforehand.
    yield Access("redshift-data", FOLLOW, ("*",), why)
    cluster = _arn(where, region, "redshift", f"cluster:{place.cluster}") if place.cluster else ""
    workgroup = _arn(where, region, "redshift-serverless", "workgroup/*")
    yield Access("redshift-data", execute, (cluster or workgroup,), why)
    if secret is not None:
        yield Access("secretsmanager", ("secretsmanager:GetSecretValue",), (secret,), why)
    elif place.db_user is not None:
        names = (f"dbname:{place.cluster}/{place.database}", f"dbuser:{place.cluster}/{place.db_user}")
        arns = tuple(_arn(where, region, "redshift", name) for name in names)
        yield Access("redshift", ("redshift:GetClusterCredentials",), arns, why)
    elif place.cluster is not None:
        name = _arn(where, region, "redshift", f"dbname:{place.cluster}/{place.database}")
        yield Access("redshift", ("redshift:GetClusterCredentialsWithIAM",), (name,), why)
    else:
        yield Access("redshift-serverless", ("redshift-serverless:GetCredentials",), (workgroup,), why)


def _tables(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    urls = [*(url for stage in pipeline.stages for url in stage.table_urls()), *pipeline.source.decode.file_urls()]
    region = pipeline.source.kinesis.region
    for url in _distinct(url for url in urls if is_remote(url) and not url.startswith(SERVERS)):
        yield from _one(url, where, "read a reference table")
    for place in dict.fromkeys(warehouse(url) for url in urls if url.startswith(REDSHIFT)):
        yield from _asked(place, ASK, None, (where, region), "read a reference table")


def _secrets(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    prefix = f"{SECRETS_MANAGER}:"
    for name in _distinct(each.removeprefix(prefix).partition("#")[0] for each in references(pipeline) if each.startswith(prefix)):
        # A secret's ARN ends in six characters that its name does not tell.
        resource = name if name.startswith("arn:") else _arn(where, None, "secretsmanager", f"secret:{name}-??????")
        yield Access("secretsmanager", ("secretsmanager:GetSecretValue",), (resource,), "read a secret")


def _leases(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    native = pipeline.coordination.native
    if native is None:
        return
    named = native.tables(pipeline.application)
    table, state, reports = (_arn(where, native.region, "dynamodb", f"table/{name}") for name in named)
    yield Access("dynamodb", LEASES, (table,), "share the shards with other workers")
    yield Access("dynamodb", ("dynamodb:GetItem",), (state,), SEE_FLEET)
    yield Access("dynamodb", REPORTS, (reports,), JOIN_FLEET)
    if native.create_table:
        yield Access("dynamodb", MAKE, (table,), "create the lease table")


def _daemon(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    """The tables of the MultiLangDaemon, which has an application, and so tables, for each stream.

    By what KCL 2.5.8 and 3.1.3 ask for; 2.x uses the first table alone.
    """
    if pipeline.coordination.kcl is None:
        return
    kinesis = pipeline.source.kinesis
    for name in kcl_applications(pipeline.application, kinesis.names, several=bool(kinesis.streams)):
        table = _arn(where, kinesis.region, "dynamodb", f"table/{name}")
        made = (*MAKE, "dynamodb:DescribeTable")
        yield Access("dynamodb", DAEMON, (table,), FLEET)
        yield Access("dynamodb", ("dynamodb:Query",), (f"{table}/index/{LEASE_INDEX}",), FLEET)
        yield Access("dynamodb", (*made, *LEADER), (f"{table}{COORDINATOR_STATE}",), FLEET)
        yield Access("dynamodb", (*made, *REPORTS), (f"{table}{WORKER_STATS}",), FLEET)


def _arn(where: Account, region: str | None, service: str, name: str) -> str:
    return f"arn:{where.partition}:{service}:{region or where.region}:{where.number}:{name}"


def _s3(where: Account, bucket: str) -> str:
    return f"arn:{where.partition}:s3:::{bucket}"


def _bucket(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
