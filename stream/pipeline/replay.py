"""Options of reading again: objects as a source, budgets of dead letters, and who is told when a shard halts."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stream.pipeline.units import parse_duration
from stream.pipeline.values import CollectorUrl, Count, Duration, Location, Region, SecretReference, StreamName, fail_at
from stream.source.texts import ObjectCodec, ObjectFormat

DEFAULT_NAME: Final = "objects"


class Part(BaseModel):
    """Base of all parts of a pipeline: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


class ObjectsSource(Part):
    """Objects under a prefix of S3 or in a directory, or those that a manifest lists."""

    url: Location = Field(description="Where the objects are: s3://bucket/prefix/ or file:./directory.")
    name: StreamName = Field(default=DEFAULT_NAME, description="Under which the commit log keeps what was read, as a stream's name is.")
    format: ObjectFormat = Field(default=ObjectFormat.NDJSON, description="ndjson, csv (a record is a line), or parquet (a row).")
    compression: ObjectCodec = Field(default=ObjectCodec.AUTO, description="auto (by .gz, .zst, .bz2), none, gzip, zstd, bz2.")
    column: str | None = Field(
        default=None, description="Of Parquet: the column that holds whole records; each row becomes JSON otherwise."
    )
    manifest: Location | None = Field(
        default=None, description="List of the objects to read, below `url`: a key or URL per line, or a COPY manifest in JSON."
    )
    time: str = Field(
        default="modified",
        description="What `backfill --from --to` goes by: modified, or a time in the key as %Y/%m/%d/%H.",
    )
    shards: Count = Field(default=4, description="How many runs of objects are read side by side.")

    def misfit(self, decoder: str) -> tuple[str, str] | None:
        """What is wrong with reading this format with the decoder of that name, and what to do; None if it fits."""
        if (self.format is ObjectFormat.CSV) != (decoder == "csv"):
            return f"objects of the format {self.format} cannot be read with the decoder `{decoder}`", "csv and `decode: csv` go together"
        if self.column is not None and self.format is not ObjectFormat.PARQUET:
            return "`column` is for Parquet", "remove it"
        return None


class StageBudget(Part):
    """For what one stage or sink refused."""

    attempts: Count | None = Field(default=None, description="Times that a record may be tried, the first included.")
    age: Duration | None = Field(default=None, description="Since a record arrived.")


class RedriveBudget(Part):
    """How often and how long a dead letter may be sent through again."""

    attempts: Count = Field(default=5, description="Times that a record may be tried, the first included.")
    age: Duration = Field(default=parse_duration("365d"), description="Since the record arrived.")
    stages: dict[str, StageBudget] = Field(default_factory=dict, description="Other bounds for what a stage or sink refused, by its name.")


def _topic(value: str) -> str:
    parts = value.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sns" or not all(parts[3:]):
        message = f"{value!r} is no topic"
        fail_at((), "bad_value", message, "write its ARN: arn:aws:sns:REGION:ACCOUNT:NAME")
    return value


class Notify(Part):
    """Who is told that a shard has halted. Telling never holds up a shard; it is tried again for some minutes."""

    sns: Annotated[str, AfterValidator(_topic)] | None = Field(default=None, description="ARN of an SNS topic.")
    webhook: CollectorUrl | None = Field(default=None, description="URL to which the news is posted as JSON.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers of the webhook, as `{name: {env: NAME}}`.")
    region: Region | None = Field(default=None, description="AWS region of the topic; that of its ARN where not given.")
