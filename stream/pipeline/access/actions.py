"""Which AWS actions a pipeline needs, on which resources. Pure: derived from the definition alone.

Action names are those of the Service Authorization Reference
(https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from stream.pipeline.coordination import COORDINATOR_STATE, LEASE_INDEX, WORKER_STATS, kcl_applications
from stream.pipeline.model import Pipeline, Retrieval
from stream.pipeline.replay import Queue
from stream.pipeline.resources.fetching import is_remote
from stream.pipeline.resources.secrets import SECRETS_MANAGER, references
from stream.sink.iceberg import CatalogType, IcebergSinkConfig
from stream.sink.redshift import RedshiftSinkConfig
from stream.stream_ids import parse
from stream.transform.stages.enrich import REDSHIFT, SERVERS, Warehouse, warehouse

READ_STREAM: Final = ("kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards")
MAP_STREAM: Final = ("kinesis:DescribeStream", *READ_STREAM)
"""What Lambda needs, under the function's role, to read a stream for it (services-kinesis-create in Lambda's guide)."""
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
CREATE_TABLE: Final = ("dynamodb:CreateTable",)
DAEMON: Final = ("dynamodb:CreateTable", *LEASES, "dynamodb:UpdateTable")
"""The Java KCL creates its tables itself; 3.x then adds an index to the first one."""
LEADER: Final = tuple(f"dynamodb:{name}Item" for name in ("Delete", "Get", "Put", "Update"))
SEE_FLEET: Final = "see whether KCL 3.x owns the lease table, and who leads"
JOIN_FLEET: Final = "report to the leader of a KCL 3.x fleet"
FLEET: Final = "let workers under the KCL share the shards"
SHARE: Final = "share the shards with other workers"
UNLOCK: Final = "read a secret"
REFERENCE: Final = "read a reference table"
READ_OBJECTS: Final = "read the source's objects"
KEEP_LOG: Final = "keep the commit log"
EXECUTE: Final = ("redshift-data:BatchExecuteStatement", "redshift-data:ExecuteStatement")
CATALOG: Final = ("glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable")
GET_TABLE: Final = ("glue:GetTable",)
EXECUTE_ONE: Final = ("redshift-data:ExecuteStatement",)
FOLLOW: Final = ("redshift-data:DescribeStatement", "redshift-data:GetStatementResult")
RECEIVE: Final = ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")
"""A worker receives and deletes; ``stream doctor`` looks at the queue's attributes."""
LIST: Final = ("s3:ListBucket",)
"""With this permission S3 answers 404 for a missing object; without it, 403."""


@dataclass(frozen=True, slots=True)
class Account:
    """Account, region and partition in the ARNs of a pipeline's resources; ``*`` for what the pipeline file does not say."""

    number: str = "*"
    region: str = "*"
    partition: str = "aws"


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """Actions that are needed on resources, and why.

    ``prefixes``: for ``s3:ListBucket``, values of the condition key ``s3:prefix``.
    """

    service: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    why: str
    prefixes: tuple[str, ...] = ()


def writing(sink: str) -> str:
    """The purpose of access to the files of ``sink``."""
    return f"write the files of sink {sink}"


def loading(sink: str) -> str:
    """The purpose of access to the table of ``sink``."""
    return f"load the table of sink {sink}"


def needed(pipeline: Pipeline, account: Account | None = None) -> tuple[Access, ...]:
    """What a worker that runs ``pipeline`` must be allowed to do on AWS.

    KMS is not included: for a stream, a bucket or a secret that is encrypted with a customer managed key, ``kms:Decrypt`` on that key is
    needed too, and ``kms:GenerateDataKey`` for what is written. Of these keys, the pipeline file names only ``encryption.kms_key``.
    """
    where = account or Account()
    return (
        *_source(pipeline, where),
        *_stores(pipeline, where),
        *_tables(pipeline, where),
        *_warehouses(pipeline, where),
        *_secrets(pipeline, where),
        *_leases(pipeline, where),
        *_daemon(pipeline, where),
        *_requirements(pipeline, where),
    )


def _source(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    kinesis, objects = pipeline.source.kinesis, pipeline.source.s3
    if objects is None:
        streams = tuple(_stream(name, where, kinesis.region) for name in kinesis.names)
        yield Access("kinesis", READ_STREAM, streams, "read the stream")
        if kinesis.retrieval is Retrieval.FAN_OUT:
            # The ARN of a consumer ends in its creation time.
            consumers = tuple(f"{stream}/consumer/{kinesis.consumer or pipeline.application}:*" for stream in streams)
            yield Access("kinesis", REGISTER, streams, "register the consumer of enhanced fan-out")
            yield Access("kinesis", SUBSCRIBE, consumers, "subscribe to shards")
        return
    yield from below(objects.url, where, READ_OBJECTS)
    if objects.watch is not None and objects.watch.queue is not None:
        yield Access("sqs", RECEIVE, (queue_arn(objects.watch.queue, where),), "follow the notifications of new objects")
    if objects.manifest is not None and is_remote(objects.manifest):
        yield from _one(objects.manifest, where, "read the source's manifest")


def _stream(stream: str, where: Account, region: str | None) -> str:
    shared = parse(stream)
    return arn(where, region, "kinesis", f"stream/{stream}") if shared is None else shared.arn


def queue_arn(text: str, where: Account) -> str:
    """The ARN of a queue that is given by its ARN or URL."""
    queue = Queue.of(text)
    # An emulator's URL may have no account in the place of one.
    account = queue.account if queue.account.isdecimal() else where.number
    return f"arn:{where.partition}:sqs:{queue.region or where.region}:{account}:{queue.name}"


def _requirements(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    for url in _distinct(url for url in pipeline.requires if is_remote(url)):
        bucket, key = _bucket(url)
        # The object is looked for by listing its folder.
        yield Access("s3", LIST, (_s3(where, bucket),), "look for what is required", (key[: key.rfind("/") + 1],))
    if pipeline.notify.sns is not None:
        yield Access("sns", ("sns:Publish",), (pipeline.notify.sns,), "tell of halted shards")


def below(url: str, where: Account, why: str, actions: tuple[str, ...] = ("s3:GetObject",)) -> Iterator[Access]:
    """Access to list every object below ``url``, and to do ``actions`` with it: by default, to read it."""
    if is_remote(url):
        bucket, prefix = _bucket(url)
        prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        yield Access("s3", actions, (f"{_s3(where, bucket)}/{prefix}*",), why)
        yield Access("s3", LIST, (_s3(where, bucket),), why, (f"{prefix}*",))


def _one(url: str, where: Account, why: str) -> Iterator[Access]:
    """Access to read the object at ``url``."""
    bucket, key = _bucket(url)
    yield Access("s3", ("s3:GetObject",), (f"{_s3(where, bucket)}/{key}",), why)
    yield Access("s3", LIST, (_s3(where, bucket),), why, (key,))


def _stores(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    state = pipeline.state.rstrip("/") + f"/{pipeline.application}/"
    for url, why in ((state, KEEP_LOG), *((sink.url, writing(sink.name)) for sink in pipeline.sinks)):
        yield from below(url, where, why, OBJECTS)


def _warehouses(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    region = pipeline.source.kinesis.region
    for sink in pipeline.sinks:
        if isinstance(sink, IcebergSinkConfig) and sink.catalog["type"] == CatalogType.GLUE:
            yield _glue_table(sink, (where, region))
        if not isinstance(sink, RedshiftSinkConfig):
            continue
        why = loading(sink.name)
        place = Warehouse(sink.database, sink.cluster, sink.workgroup, sink.db_user)
        yield from _data_api(place, EXECUTE, sink.secret_arn, (where, region), why)


def _glue_table(sink: IcebergSinkConfig, at: tuple[Account, str | None]) -> Access:
    """Access to the table's entry in the Glue catalog. The Glue database must exist: it determines the tables' location and permissions."""
    where, region = at
    database, _, table = sink.table.partition(".")
    arns = tuple(arn(where, region, "glue", name) for name in ("catalog", f"database/{database}", f"table/{database}/{table}"))
    return Access("glue", CATALOG if sink.create else CATALOG[1:], arns, loading(sink.name))


def _data_api(place: Warehouse, execute: tuple[str, ...], secret: str | None, at: tuple[Account, str | None], why: str) -> Iterator[Access]:
    """Access to run statements through the Redshift Data API."""
    where, region = at
    # The ids of statements and workgroups are not known in advance.
    yield Access("redshift-data", FOLLOW, ("*",), why)
    cluster = arn(where, region, "redshift", f"cluster:{place.cluster}") if place.cluster else ""
    workgroup = arn(where, region, "redshift-serverless", "workgroup/*")
    yield Access("redshift-data", execute, (cluster or workgroup,), why)
    if secret is not None:
        yield Access("secretsmanager", ("secretsmanager:GetSecretValue",), (secret,), why)
    elif place.db_user is not None:
        names = (f"dbname:{place.cluster}/{place.database}", f"dbuser:{place.cluster}/{place.db_user}")
        arns = tuple(arn(where, region, "redshift", name) for name in names)
        yield Access("redshift", ("redshift:GetClusterCredentials",), arns, why)
    elif place.cluster is not None:
        name = arn(where, region, "redshift", f"dbname:{place.cluster}/{place.database}")
        yield Access("redshift", ("redshift:GetClusterCredentialsWithIAM",), (name,), why)
    else:
        yield Access("redshift-serverless", ("redshift-serverless:GetCredentials",), (workgroup,), why)


def _tables(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    urls = [*(url for stage in pipeline.stages for url in stage.table_urls()), *pipeline.source.decode.file_urls()]
    region = pipeline.source.kinesis.region
    for url in _distinct(url for url in urls if is_remote(url) and not url.startswith(SERVERS)):
        yield from _one(url, where, REFERENCE)
    for place in dict.fromkeys(warehouse(url) for url in urls if url.startswith(REDSHIFT)):
        yield from _data_api(place, EXECUTE_ONE, None, (where, region), REFERENCE)


def _secrets(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    for name in _distinct(name for each in references(pipeline) if (name := _managed(each))):
        # A secret's ARN ends in a hyphen and six random characters.
        resource = name if name.startswith("arn:") else arn(where, None, "secretsmanager", f"secret:{name}-??????")
        yield Access("secretsmanager", ("secretsmanager:GetSecretValue",), (resource,), UNLOCK)


def names_secret(resource: str, references: Iterable[str]) -> bool:
    """Whether the ARN is that of one of the references to secrets."""
    names = [name for each in references if (name := _managed(each))]
    return any(resource == name or resource.endswith(f":secret:{name}-??????") for name in names)


def _managed(reference: str) -> str:
    """The name or ARN in Secrets Manager that a reference to a secret leads to; empty for other places."""
    prefix = f"{SECRETS_MANAGER}:"
    return reference.removeprefix(prefix).partition("#")[0] if reference.startswith(prefix) else ""


def _leases(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    native = pipeline.leases
    if native is None:
        return
    named = native.tables(pipeline.application)
    table, state, reports = (arn(where, native.region, "dynamodb", f"table/{name}") for name in named)
    yield Access("dynamodb", LEASES, (table,), SHARE)
    yield Access("dynamodb", ("dynamodb:GetItem",), (state,), SEE_FLEET)
    yield Access("dynamodb", REPORTS, (reports,), JOIN_FLEET)
    if native.create_table:
        yield Access("dynamodb", CREATE_TABLE, (table,), "create the lease table")


def _daemon(pipeline: Pipeline, where: Account) -> Iterator[Access]:
    """Access to the tables of the MultiLangDaemon, which has an application, and so its own tables, for each stream.

    These are the calls that KCL 2.5.8 and 3.1.3 make; 2.x uses only the first table.
    """
    if pipeline.coordination.kcl is None:
        return
    kinesis = pipeline.source.kinesis
    for name in kcl_applications(pipeline.application, kinesis.names, several=bool(kinesis.streams)):
        table = arn(where, kinesis.region, "dynamodb", f"table/{name}")
        made = (*CREATE_TABLE, "dynamodb:DescribeTable")
        yield Access("dynamodb", DAEMON, (table,), FLEET)
        yield Access("dynamodb", ("dynamodb:Query",), (f"{table}/index/{LEASE_INDEX}",), FLEET)
        yield Access("dynamodb", (*made, *LEADER), (f"{table}{COORDINATOR_STATE}",), FLEET)
        yield Access("dynamodb", (*made, *REPORTS), (f"{table}{WORKER_STATS}",), FLEET)


def arn(where: Account, region: str | None, service: str, name: str) -> str:
    """The ARN of something in that account, and in ``region`` if the pipeline file names one."""
    return f"arn:{where.partition}:{service}:{region or where.region}:{where.number}:{name}"


def _s3(where: Account, bucket: str) -> str:
    return f"arn:{where.partition}:s3:::{bucket}"


def _bucket(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
