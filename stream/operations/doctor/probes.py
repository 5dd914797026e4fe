"""One check for everything that a pipeline needs, using calls that workers make, too, and that change nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from stream.aws.errors import AwsFatal
from stream.aws.kinesis import IteratorAt, IteratorKind, open_kinesis
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.errors import DefinitionError, Fatal, Retryable
from stream.operations.doctor.daemon_probes import MADE_BY_DAEMON, daemon_probes
from stream.operations.doctor.lifecycle_probes import lifecycle_probes
from stream.operations.doctor.probe import GRANT_REMEDY, Probe
from stream.operations.doctor.queue_probes import queue_probes
from stream.operations.doctor.service_probes import consumer_probes, fitting_probe, lease_probes, notice_probes, warehouse_probes
from stream.pipeline.access.actions import needed
from stream.pipeline.model import Pipeline
from stream.pipeline.plan import output_schema
from stream.pipeline.replay import ObjectsSource
from stream.pipeline.resources.fetching import fetch_resources, is_remote
from stream.pipeline.resources.secrets import SecretReader, find_secret, references
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.layouts import Layout
from stream.sink.objects import SinkConfig
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_sql import Owner
from stream.storage.directory import DirectoryStore
from stream.storage.open import open_store
from stream.storage.s3 import KmsKey
from stream.worker.opening.identity import asks_first, only_compared
from stream.worker.opening.places import is_there, kms_key, located, read_object
from stream.worker.opening.stores import Stores
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.iceberg_properties import Secret, catalog_properties, secrets_of

NOBODY: Final = '"00000000000000000000000000000000"'
"""An ETag that no object has: a write under this condition is denied or allowed by IAM, but never happens."""

PROBE_KEY: Final = "_preflight/doctor"

_OTHER_STREAM: Final = "no worker reads this stream for this log; docs/runbook.md says what to do when the log is of another stream"

_DIRECTORY: Final = "it must be a directory that this user may write to, or can be created in one, with space left"

NOT_TRIED: Final[Mapping[str, str]] = {
    "s3:DeleteObject": "in a versioned bucket, deleting an object that does not exist leaves a delete marker",
    "kinesis:RegisterStreamConsumer": "a consumer would be registered",
    "kinesis:SubscribeToShard": "a worker that is subscribed would lose its subscription",
    "sns:Publish": "somebody would be notified",
    "glue:CreateTable": "a table would be created",
    "glue:UpdateTable": "a table would be changed",
}
"""Actions of our workers that cannot be tried without taking effect, with the reason."""


def untried(pipeline: Pipeline) -> dict[str, str]:
    """Actions that the pipeline needs and that are not tried, with the reason. Every other action that `stream iam` lists is tried."""
    wanted = {action for each in needed(pipeline) for action in each.actions}
    every = {**NOT_TRIED, **(MADE_BY_DAEMON if pipeline.coordination.kcl is not None else {})}
    return {action: why for action, why in every.items() if action in wanted}


_DISTRIBUTED: Final = (
    "the service distributes its records (AUTO), so producers with the KPL must not aggregate: of aggregates, the user records whose keys "
    "belong to other shards are left out as `out_of_range`, unless `kpl_out_of_range: keep` is set"
)
"""https://docs.aws.amazon.com/streams/latest/dev/service-managed-pk-kpl-aggregation.html."""


def probes(pipeline: Pipeline, session: AwsSession, base: Path, env: Mapping[str, str]) -> Iterator[Probe]:
    """One probe per stream, place, bucket, table, secret and required object, then those of consumer, leases, warehouse and notices."""
    if pipeline.source.s3 is None:
        for name in pipeline.source.kinesis.names:
            yield Probe("stream", name, functools.partial(_stream, session, name))
            yield Probe("log", name, functools.partial(_log, pipeline, session, base, name), _OTHER_STREAM)
    else:
        yield Probe("source", pipeline.source.s3.url, functools.partial(_listed, session, pipeline.source.s3, base))
    state = f"{pipeline.state.rstrip('/')}/{pipeline.application}/"
    key = kms_key(pipeline)
    for url in dict.fromkeys((state, *(sink.url for sink in pipeline.sinks))):
        remedy = _DIRECTORY if url.startswith("file:") else GRANT_REMEDY
        yield Probe("place", url, functools.partial(_place, session, located(url, base), key), remedy)
    yield from lifecycle_probes(pipeline, session)
    yield Probe("tables", "reference tables, files and functions", functools.partial(_tables, pipeline, session, base, env))
    managed = functools.partial(read_secret, session)
    for name in references(pipeline):
        yield Probe("secret", name, functools.partial(_secret, name, env, base, managed))
    for url in pipeline.requires:
        yield Probe("required", url, functools.partial(_required, session, url, base))
    if pipeline.source.s3 is None:
        yield from consumer_probes(pipeline.source.kinesis, pipeline.application, session)
    else:
        yield from queue_probes(pipeline.source.s3, session)
    if pipeline.leases is not None:
        yield from lease_probes(pipeline.leases, pipeline.application)
    yield from daemon_probes(pipeline)
    for sink in pipeline.sinks:
        yield from _table(sink, session, base, secrets_of(env, base, managed))
        if isinstance(sink, RedshiftSinkConfig):
            kinesis = pipeline.source.kinesis
            longest = max(Owner(pipeline.application, name, several=bool(kinesis.streams)).shard_bytes for name in kinesis.names)
            yield fitting_probe(sink, session, functools.partial(_layout, pipeline, session, base, env, sink), longest)
    yield from notice_probes(pipeline.notify)


def _table(sink: SinkConfig, session: AwsSession, base: Path, secret: Secret) -> Iterator[Probe]:
    if isinstance(sink, RedshiftSinkConfig):
        yield from warehouse_probes(sink, session)
    if isinstance(sink, IcebergSinkConfig):
        table = CatalogTable(sink, located(sink.url, base), catalog_properties(sink, session, secret))
        yield Probe("warehouse", f"table {sink.table} in the catalog of type {sink.catalog['type']}", functools.partial(_described, table))


async def _described(table: CatalogTable) -> str:
    with closing(table):
        return await table.describe()


async def _stream(session: AwsSession, name: str) -> str:
    async with open_kinesis(session) as client:
        summary = await client.describe_stream_summary(name)
        if summary.status not in {"ACTIVE", "UPDATING"}:
            msg = f"the stream is {summary.status}; only ACTIVE and UPDATING streams can be read"
            raise Fatal(msg)
        shards = await client.list_shards(name)
        read = False
        if shards:
            # Read the oldest record: in an encrypted stream, only a record shows whether the key may be used.
            iterator = await client.get_shard_iterator(name, shards[0].shard_id, IteratorAt(IteratorKind.TRIM_HORIZON))
            read = (await client.get_records(name, iterator, limit=1)).frame.height > 0
    hours = summary.retention.total_seconds() / 3600
    answer = f"{summary.status}, {len(shards)} shards known, records stay {hours:g} h; listed, described and read"
    if summary.distributes:
        answer = f"{answer}; {_DISTRIBUTED}"
    if summary.encrypted and not read:
        return f"{answer}, but no record was there to show that kms:Decrypt is allowed"
    return answer


async def _log(pipeline: Pipeline, session: AwsSession, base: Path, name: str) -> str:
    """Which stream the log is of. If that cannot be compared, because it or the stream cannot be read, another probe says why."""
    state = Stores.open(pipeline, base, session).state
    async with open_kinesis(session) as client:
        pinned = only_compared(client, state, name, asks=asks_first(pipeline))
        try:
            pin, summary = await pinned.pin(), await client.describe_stream_summary(name)
        except (AwsFatal, Retryable) as error:
            return f"not compared with the stream: {error}"
        if why := pinned.why_refused(pin, summary):
            raise Fatal(why)
    if pin is None:
        return "no stream is pinned; the next worker to start pins the one that it finds"
    return f"of this stream, pinned at {pin.pinned_at}: {pin}"


async def _listed(session: AwsSession, source: ObjectsSource, base: Path) -> str:
    store = open_store(located(source.url, base), session, requester_pays=source.requester_pays)
    async for entry in store.list(""):
        return f"can be listed; the first object is {entry.key}"
    return "can be listed, and is empty"


async def _place(session: AwsSession, url: str, key: KmsKey | None) -> str:
    store = open_store(url, session, key)
    async for _ in store.list("_preflight/"):
        break
    await store.get(PROBE_KEY)
    if isinstance(store, DirectoryStore):
        await store.check_writable()
    elif is_remote(url):
        await store.replace(PROBE_KEY, b"", NOBODY)
    return "can be listed, read and written"


async def _tables(pipeline: Pipeline, session: AwsSession, base: Path, env: Mapping[str, str]) -> str:
    managed = functools.partial(read_secret, session)
    found = await fetch_resources(pipeline, base, env, functools.partial(read_object, session), {}, managed)
    return f"{len(found.digests)} read"


async def _layout(pipeline: Pipeline, session: AwsSession, base: Path, env: Mapping[str, str], sink: RedshiftSinkConfig) -> Layout:
    managed = functools.partial(read_secret, session)
    found = await fetch_resources(pipeline, base, env, functools.partial(read_object, session), {}, managed)
    return sink.layout(output_schema(pipeline, found.resources))


async def _secret(name: str, env: Mapping[str, str], base: Path, managed: SecretReader) -> str:
    await find_secret(name, env, base, managed)
    return "can be read"


async def _required(session: AwsSession, url: str, base: Path) -> str:
    if await is_there(session, url, base):
        return "is there"
    msg = "it does not exist, and the worker will not start without it"
    raise DefinitionError(msg)
