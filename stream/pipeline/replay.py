"""Options for reading again: objects as a source, budgets for dead letters, and notifications of halts."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stream.pipeline.units import parse_duration
from stream.pipeline.values import CollectorUrl, Count, Duration, Location, Region, SecretReference, StreamName, fail_at
from stream.source.object_formats import ObjectCodec, ObjectFormat

DEFAULT_NAME: Final = "objects"


class Part(BaseModel):
    """Base of all parts of a pipeline: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


class ObjectsSource(Part):
    """Objects under a prefix of S3 or in a directory, or those that a manifest lists."""

    url: Location = Field(description="Where the objects are: s3://bucket/prefix/ or file:./directory.")
    name: StreamName = Field(default=DEFAULT_NAME, description="Name under which the commit log keeps what was read, like a stream's name.")
    format: ObjectFormat = Field(default=ObjectFormat.NDJSON, description="ndjson, csv (a record is a line), or parquet (a row).")
    compression: ObjectCodec = Field(default=ObjectCodec.AUTO, description="auto (by .gz, .zst, .bz2), none, gzip, zstd, bz2.")
    column: str | None = Field(
        default=None, description="For Parquet: the column that holds whole records; by default, each row becomes a JSON record."
    )
    manifest: Location | None = Field(
        default=None, description="List of the objects under `url` to read: a key or URL per line, or a COPY manifest in JSON."
    )
    time: str = Field(
        default="modified",
        description="The time that `backfill --from --to` uses: modified, or a time in the key, such as %Y/%m/%d/%H.",
    )
    shards: Count = Field(default=4, description="Number of shards, read concurrently, into which the objects are divided.")

    def misfit(self, decoder: str) -> tuple[str, str] | None:
        """Why this format cannot be read with ``decoder``, and what to do; None if it can."""
        if (self.format is ObjectFormat.CSV) != (decoder == "csv"):
            return f"objects of the format {self.format} cannot be read with the decoder `{decoder}`", "csv and `decode: csv` go together"
        if self.column is not None and self.format is not ObjectFormat.PARQUET:
            return "`column` is only for Parquet", "remove it"
        return None


class StageBudget(Part):
    """Limits for what one stage or sink refused."""

    attempts: Count | None = Field(default=None, description="How often a record may be tried, including the first time.")
    age: Duration | None = Field(default=None, description="Greatest age, counted from the record's arrival.")


class RedriveBudget(Part):
    """How often, and for how long, a dead letter may be redriven."""

    attempts: Count = Field(default=5, description="How often a record may be tried, including the first time.")
    age: Duration = Field(default=parse_duration("365d"), description="Greatest age, counted from the record's arrival.")
    stages: dict[str, StageBudget] = Field(
        default_factory=dict, description="Different limits for what a stage or sink refused, by its name."
    )


def _topic(value: str) -> str:
    parts = value.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sns" or not all(parts[3:]):
        message = f"{value!r} is not an SNS topic"
        fail_at((), "bad_value", message, "write its ARN: arn:aws:sns:REGION:ACCOUNT:NAME")
    return value


class Notify(Part):
    """Whom to notify that a shard has halted. Notifications never hold up a shard; they are retried for a few minutes."""

    sns: Annotated[str, AfterValidator(_topic)] | None = Field(default=None, description="ARN of an SNS topic.")
    webhook: CollectorUrl | None = Field(default=None, description="URL to which the news is posted as JSON.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers of the webhook, as `{name: {env: NAME}}`.")
    region: Region | None = Field(default=None, description="AWS region of the topic; by default, the one in its ARN.")
