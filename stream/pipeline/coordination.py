"""The options in the pipeline file for who decides which worker reads which shard."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from stream.pipeline.replay import Part
from stream.pipeline.units import parse_duration
from stream.pipeline.values import Count, Duration, Endpoint, Region, TableName, fail_at


class LocalCoordination(Part):
    """One worker reads all shards; checkpoints are stored beside the commit log."""


class KclCoordination(Part):
    """The KCL's MultiLangDaemon owns leases and retrieval, and starts a process of ours for each shard."""


COORDINATOR_STATE: Final = "-CoordinatorState"
WORKER_STATS: Final = "-WorkerMetricStats"
"""Suffixes of the tables that KCL 3.x keeps beside a lease table."""


class LeaseBalance(StrEnum):
    """How leases are spread over workers."""

    EVEN = "even"
    KCL = "kcl"


class NativeCoordination(Part):
    """Any number of workers share the shards through leases in DynamoDB, in the same rows that Java KCL 2.x uses."""

    table: TableName | None = Field(default=None, description="Lease table; by default, the application's name, as with the KCL.")
    failover: Duration = Field(
        default=parse_duration("10s"), description="A worker that gives no sign of life for this long loses its leases to the others."
    )
    look: Duration = Field(
        default=parse_duration("1s"),
        description="Time between looks for released leases; automatically longer for large tables, to read less.",
    )
    max_leases: Count | None = Field(default=None, description="Most leases that one worker takes; by default, no limit.")
    balance: LeaseBalance = Field(
        default=LeaseBalance.EVEN,
        description="even: by traffic, ignoring ended shards; kcl: exactly as KCL 2.x, which also applies while KCL workers hold leases.",
    )
    create_table: bool = Field(default=True, description="Create the table, billed on demand, if it is missing.")
    coordinator_state_table: TableName | None = Field(
        default=None, description="Where a KCL 3.x fleet keeps its rules and its leader; by default, `<table>-CoordinatorState`."
    )
    worker_metrics_table: TableName | None = Field(
        default=None, description="Where the workers of a KCL 3.x fleet report; by default, `<table>-WorkerMetricStats`."
    )
    region: Region | None = Field(default=None, description="AWS region of the table; by default, the environment's.")
    endpoint: Endpoint | None = Field(default=None, description="URL of DynamoDB, for an emulator or a VPC endpoint.")

    def tables(self, application: str) -> LeaseTables:
        """The names of the tables."""
        leases = self.table or application
        state, reports = self.coordinator_state_table, self.worker_metrics_table
        return LeaseTables(leases, state or f"{leases}{COORDINATOR_STATE}", reports or f"{leases}{WORKER_STATS}")


class LeaseTables(NamedTuple):
    """The lease table, and those beside it in which a KCL 3.x fleet keeps its rules and its workers' reports."""

    leases: str
    state: str
    reports: str


class Coordination(Part):
    """Who decides which worker reads which shard: exactly one of these."""

    local: LocalCoordination | None = Field(default=None, description="One worker reads all shards.")
    native: NativeCoordination | None = Field(default=None, description="Workers share the shards through leases in DynamoDB.")
    kcl: KclCoordination | None = Field(default=None, description="The KCL's MultiLangDaemon; see `stream kcl`.")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A kind of coordination by its name alone means all its defaults."""
        if isinstance(value, str):
            if value not in cls.model_fields:
                message = f"`{value}` is not a kind of coordination"
                fail_at((), "bad_value", message, f"write one of {', '.join(cls.model_fields)}")
            return {value: {}}
        return (
            {key: {} if options is None and key in cls.model_fields else options for key, options in value.items()}
            if isinstance(value, dict)
            else value
        )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(given := [name for name in type(self).model_fields if getattr(self, name) is not None]) != 1:
            message = f"{' and '.join(given) if given else 'none'} given; a pipeline has exactly one kind of coordination"
            fail_at((), "bad_value", message, f"write one of {', '.join(type(self).model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Write only the kind that is used, by its name alone if it has no options, so that the form of definitions never changes."""
        written = {key: value for key, value in handler(self).items() if value is not None}
        return next(iter(written)) if not any(written.values()) else written


def kcl_applications(application: str, streams: tuple[str, ...], *, several: bool) -> tuple[str, ...]:
    """The KCL's application name, which names its lease table, for each of ``streams``: a MultiLangDaemon reads one stream.

    ``several``: the pipeline file lists streams, even if only one.
    """
    return tuple(f"{application}-{name}" if several else application for name in streams)


LEASE_INDEX: Final = "LeaseOwnerToLeaseKeyIndex"
"""With which KCL 3.x finds the leases of a worker in the lease table."""
