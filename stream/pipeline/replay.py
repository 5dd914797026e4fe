"""Options for reading again: objects as a source, budgets for dead letters, and notifications of halts."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from stream.pipeline.units import parse_duration
from stream.pipeline.values import Count, Duration, Location, Region, SecretReference, StreamName, WebhookUrl, fail_at
from stream.source.object_formats import TYPED, ObjectCodec, ObjectFormat

DEFAULT_NAME: Final = "objects"

LISTED_EVERY: Final = timedelta(minutes=1)
LISTED_BESIDE_A_QUEUE: Final = timedelta(hours=1)
"""A listing costs one request for a thousand objects. Beside a queue it only finds what notifications missed."""

SHORTEST_EVERY: Final = timedelta(seconds=1)

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+")
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Part(BaseModel):
    """Base of all parts of a pipeline: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


class OnDeleted(StrEnum):
    """What happens when an object was deleted before all of it was read."""

    GAP = "gap"
    HALT = "halt"


class OnUnreadable(StrEnum):
    """What happens when the content of an object cannot be read."""

    DEAD_LETTER = "dead_letter"
    HALT = "halt"


def _queue(value: str) -> str:
    """A queue's ARN or URL.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-message-identifiers.html
    """
    hint = "write its ARN, arn:aws:sqs:REGION:ACCOUNT:NAME, or its URL, https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
    if value.endswith(".fifo"):
        fail_at((), "bad_value", f"{value!r} is a FIFO queue, to which S3 sends no notifications", "use a standard queue")
    parts = value.split(":")
    if value.startswith("arn:"):
        if len(parts) != 6 or parts[2] != "sqs" or not all(parts[3:]) or _QUEUE_NAME.fullmatch(parts[5]) is None:
            fail_at((), "bad_value", f"{value!r} is no ARN of a queue", hint)
        return value
    try:
        url = urlsplit(value)
        path = url.path.strip("/").split("/")
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and not (url.query or url.username)
    except ValueError:
        usable, path = False, []
    if not usable or len(path) != 2 or _QUEUE_NAME.fullmatch(path[1]) is None:
        fail_at((), "bad_value", f"{value!r} names no queue", hint)
    return value


class Queue(BaseModel):
    """A queue of SQS by its parts; ``region`` and ``account`` are empty if the pipeline file does not say them."""

    model_config = ConfigDict(frozen=True)

    name: str
    account: str
    region: str
    url: str

    @classmethod
    def of(cls, text: str) -> Self:
        """From a valid ARN or URL; ``url`` is empty for an ARN."""
        if text.startswith("arn:"):
            parts = text.split(":")
            return cls(name=parts[5], account=parts[4], region=parts[3], url="")
        url = urlsplit(text)
        account, name = url.path.strip("/").split("/")
        region = next((part for part in (url.hostname or "").split(".") if _REGION.fullmatch(part)), "")
        return cls(name=name, account=account, region=region, url=text)


class Watch(Part):
    """How a worker that stays up finds new objects."""

    queue: Annotated[str, AfterValidator(_queue)] | None = Field(
        default=None,
        description="ARN or URL of the SQS queue that receives the bucket's notifications; by default, objects are only listed.",
    )
    every: Duration | None = Field(
        default=None, description="Time between two listings of all objects; by default `1m`, and `1h` with a `queue`."
    )
    on_deleted: OnDeleted = Field(
        default=OnDeleted.GAP,
        description="An object deleted before all of it was read: gap (record it in the commit log, raise an alarm, continue) or halt.",
    )
    on_unreadable: OnUnreadable = Field(
        default=OnUnreadable.DEAD_LETTER,
        description="An object whose content cannot be read, such as a truncated gzip file: dead_letter (what cannot be read of it becomes "
        "one dead letter, which can be redriven) or halt.",
    )

    @model_validator(mode="after")
    def _not_without_pause(self) -> Self:
        if self.every is not None and self.every < SHORTEST_EVERY:
            fail_at(("every",), "bad_value", "objects cannot be listed more than once a second", "write 1s or more")
        return self

    @property
    def listed_every(self) -> timedelta:
        """``every``, or what it is by default."""
        return self.every or (LISTED_EVERY if self.queue is None else LISTED_BESIDE_A_QUEUE)


class ObjectsSource(Part):
    """Objects under a prefix of S3 or in a directory, or those that a manifest lists."""

    url: Location = Field(description="Where the objects are: s3://bucket/prefix/ or file:./directory.")
    name: StreamName = Field(default=DEFAULT_NAME, description="Name under which the commit log keeps what was read, like a stream's name.")
    format: ObjectFormat = Field(
        default=ObjectFormat.NDJSON,
        description="ndjson, csv (a record is a line), json (a value, wherever its lines end), or parquet, arrow, avro (a row).",
    )
    compression: ObjectCodec = Field(default=ObjectCodec.AUTO, description="auto (by .gz, .zst, .bz2), none, gzip, zstd, bz2.")
    column: str | None = Field(
        default=None,
        description="For parquet, arrow and avro: the column that holds whole records; by default, each row becomes a JSON record.",
    )
    records: str | None = Field(
        default=None,
        description="For json: the list whose elements are records, such as `Records` or `detail.items`; `$` if a document is that list.",
    )
    manifest: Location | None = Field(
        default=None, description="List of the objects under `url` to read: a key or URL per line, or a COPY manifest in JSON."
    )
    time: str = Field(
        default="modified",
        description="The time that `backfill --from --to` uses: modified, or a time in the key, such as %Y/%m/%d/%H.",
    )
    request_payer: Literal["requester"] | None = Field(
        default=None, description="requester, for a Requester Pays bucket: the account that reads pays for requests and transfer."
    )
    shards: Count = Field(default=4, description="Number of shards, read concurrently, into which the objects are divided.")
    watch: Watch | None = Field(
        default=None, description="Stay up and read objects as they arrive: see docs/objects.md. By default, the run ends."
    )

    @model_validator(mode="after")
    def _watched_as_a_whole(self) -> Self:
        if self.watch is not None and self.manifest is not None:
            fail_at(("watch",), "bad_value", "a manifest lists objects once, and `watch` waits for new ones", "remove one of the two")
        if self.watch is not None and self.watch.queue is not None and not self.url.startswith("s3://"):
            fail_at(("watch", "queue"), "bad_value", f"a directory, {self.url}, sends no notifications", "remove `queue`: it is listed")
        return self

    @model_validator(mode="after")
    def _paid_on_s3(self) -> Self:
        if self.request_payer is not None and not self.url.startswith("s3://"):
            fail_at(("request_payer",), "bad_value", f"nobody pays for requests to {self.url}: it is not on S3", "remove `request_payer`")
        return self

    @model_validator(mode="after")
    def _records_of_json(self) -> Self:
        if self.records is None:
            return self
        if self.format is not ObjectFormat.JSON:
            fail_at(("records",), "bad_value", f"objects of the format {self.format} have no lists of records", "write `format: json`")
        if not self.records or not all(self.records_path or ("$",)):
            fail_at(
                ("records",),
                "bad_value",
                f"{self.records!r} names no member",
                "write names with dots between them, such as `Records`, or `$`",
            )
        return self

    @property
    def records_path(self) -> tuple[str, ...] | None:
        """``records`` as the names of members; ``()`` for the document itself."""
        if self.records is None:
            return None
        names = self.records.removeprefix("$")
        return tuple(names.removeprefix(".").split(".")) if names else ()

    @model_serializer(mode="wrap")
    def _without_absent_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave newer options out where they are not used, so that recorded definitions without them never change."""
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if key not in {"watch", "records", "request_payer"} or value is not None}

    @property
    def requester_pays(self) -> bool:
        """Whether requests to the bucket say that whoever makes them pays."""
        return self.request_payer is not None

    def misfit(self, decoder: str) -> tuple[str, str] | None:
        """Why this format cannot be read with ``decoder``, and what to do; None if it can."""
        if (self.format is ObjectFormat.CSV) != (decoder == "csv"):
            return f"objects of the format {self.format} cannot be read with the decoder `{decoder}`", "csv and `decode: csv` go together"
        if self.column is not None and self.format not in TYPED:
            return "`column` is only for parquet, arrow and avro", "remove it"
        packed = self.compression not in {ObjectCodec.AUTO, ObjectCodec.NONE}
        if packed and self.format in {ObjectFormat.ARROW, ObjectFormat.AVRO}:
            return f"objects of the format {self.format} are compressed inside", "remove `compression`"
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
    """Whom to notify that a shard has halted or lost records. Notifications never hold up a shard; they are retried for a few minutes."""

    sns: Annotated[str, AfterValidator(_topic)] | None = Field(default=None, description="ARN of an SNS topic.")
    webhook: WebhookUrl | None = Field(default=None, description="URL to which the news is posted as JSON.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers of the webhook, as `{name: {env: NAME}}`.")
    region: Region | None = Field(default=None, description="AWS region of the topic; by default, the one in its ARN.")
