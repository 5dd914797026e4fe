"""Types of single values in a pipeline file: durations, sizes, places, names, start positions, components.

Each takes what YAML gives and serialises to what YAML would give again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NoReturn, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from stream.audit.context import PATH
from stream.contracts import Start, StartKind
from stream.errors import DefinitionError
from stream.pipeline import components
from stream.pipeline.findings import Path, near_miss
from stream.pipeline.regions import FORM
from stream.pipeline.units import format_duration, parse_duration, parse_size
from stream.pipeline.wording import worded
from stream.recorded import is_recorded
from stream.references import secret_reference
from stream.sink.objects import SinkConfig
from stream.storage.keys import problem_of_place
from stream.stream_ids import EXAMPLE, NAME, as_written, parse, stream_id
from stream.transform.decode import DecoderConfig
from stream.transform.stage import StageConfig

"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""


_TITLE: Final = "pipeline"


def problem(code: str, message: str, hint: str = "") -> PydanticCustomError:
    """An error that a finding shows under ``code`` with ``message`` and ``hint`` as they are."""
    return PydanticCustomError("finding", "{message}", {"code": code, "message": message, "hint": hint})


def fail_at(path: Path, code: str, message: str, hint: str = "") -> NoReturn:
    """Raise, from inside a validator, an error about the value at ``path`` below the one being validated.

    Raises:
        ValidationError: always.
    """
    fail_with([(path, problem(code, message, hint))])


def fail_with(problems: Iterable[tuple[Path, PydanticCustomError]]) -> NoReturn:
    """Raise, from inside a validator, several errors, each with its path below the value being validated.

    Raises:
        ValidationError: always.
    """
    details = [InitErrorDetails(type=each, loc=path, input=None) for path, each in problems]
    raise ValidationError.from_exception_data(_TITLE, details)


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        example = f"{value}s" if isinstance(value, int) and not isinstance(value, bool) else "60s"
        message = f"a duration needs a unit, got {value!r}"
        fail_at((), "bad_value", message, f"write {example} (units: d, h, m, s, ms)")
    return parse_duration(value)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        message = f"{value!r} is not a size"
        fail_at((), "bad_value", message, "write one such as 64MiB, 10MB or 4096")
    return parse_size(str(value))


def _positive_duration(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        msg = "a duration here must be longer than zero"
        raise ValueError(msg)
    return value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        message = f"{str(value).lower()} is not a number"
        fail_at((), "bad_value", message)
    return value


Duration: TypeAlias = Annotated[
    timedelta,
    PlainValidator(_duration),
    AfterValidator(_positive_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["500ms", "60s", "5m", "1h30m", "2d"]}),
]
Size: TypeAlias = Annotated[
    int, BeforeValidator(_size), Field(ge=1), WithJsonSchema({"type": ["string", "integer"], "examples": ["64MiB", "10MB", 4096]})
]
Count: TypeAlias = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Port: TypeAlias = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=65_535)]


def _no_percentage(value: Any) -> Any:
    text = str(value).strip()
    number = text.removesuffix("%").strip()
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", number) and (text.endswith("%") or float(number) > 1) and 0 < float(number) <= 100:
        message = f"{text} is out of range: a share is more than 0 and at most 1"
        fail_at((), "bad_value", message, f"write {float(number) / 100:g} for {number} %")
    return value


Ratio: TypeAlias = Annotated[float, BeforeValidator(_no_bool), BeforeValidator(_no_percentage), Field(gt=0, le=1)]


def _named(what: str, pattern: str, hint: str = "") -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def validate(value: str) -> str:
        if compiled.fullmatch(value) is None:
            message = f"{value!r} is not {what}" if hint else f"{value!r} is not a valid name for {what}"
            name = value.rpartition("/")[2] if value.startswith("arn:") else ""
            remedy = f"write its name instead of its ARN: {name}" if compiled.fullmatch(name) else hint or f"allowed: {pattern}"
            fail_at((), "bad_name", message, remedy)
        return value

    return validate


def _stream(value: str) -> str:
    """The name, or the id of the stream with that ARN."""
    if parse(value) is not None and "@" not in value:
        return stream_id(value)
    if not value.startswith("arn:"):
        if (found := parse(value)) is not None:
            fail_at((), "bad_name", f"{value!r} is what the commit log calls a stream, not its name", f"write its ARN: {found.arn}")
        return _stream_name(value)
    whose, consumer, _ = value.partition("/consumer/")
    if consumer and parse(whose) is not None:
        fail_at((), "bad_name", f"{value!r} is the ARN of a consumer, not of its stream", f"write {whose}, and `consumer: NAME` beside it")
    service, _, rest = value.removeprefix("arn:").partition(":")[2].partition(":")
    kind = rest.rpartition(":")[2].partition("/")[0]
    if service != "kinesis":
        what = f"an ARN of {service or 'no service'}, not of a Kinesis stream"
    elif kind != "stream" and "/" in rest:
        what = f"the ARN of a {kind}, not of a Kinesis stream"
    else:
        what = "not the ARN of a Kinesis stream; its region, its account of 12 digits, or its name is missing or wrong"
    fail_at((), "bad_name", f"{value!r} is {what}", f"write one such as {EXAMPLE}")


_stream_name: Final = _named("a Kinesis stream", NAME)
ApplicationName: TypeAlias = Annotated[str, AfterValidator(_named("an application", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"))]
StreamName: TypeAlias = Annotated[str, AfterValidator(_stream_name)]
Stream: TypeAlias = Annotated[str, AfterValidator(_stream), PlainSerializer(as_written, return_type=str)]
"""A stream's name, or its ARN, which the model holds as the stream's id."""
ConsumerName: TypeAlias = Annotated[str, AfterValidator(_named("a registered consumer", r"[a-zA-Z0-9_.-]{1,128}"))]
TableName: TypeAlias = Annotated[str, AfterValidator(_named("a DynamoDB table", r"[a-zA-Z0-9_.-]{3,255}"))]
"""https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html"""


def _no_zone(value: str) -> str:
    if re.fullmatch(f"{FORM}[a-z]", value):
        fail_at((), "bad_name", f"{value!r} is an availability zone, not a region", f"write {value[:-1]}")
    return value


Region: TypeAlias = Annotated[str, AfterValidator(_no_zone), AfterValidator(_named("an AWS region", FORM))]
Endpoint: TypeAlias = Annotated[
    str, AfterValidator(_named("an endpoint", r"https?://[^\s/?#]+/?", "write http:// or https://, a host and a port"))
]

_PORT: Final = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5]?[0-9]{1,4})"
_SERVER: Final = rf"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::{_PORT})?"
_PATH: Final = r'(?:/[!"$->A-~]*)?'

CollectorUrl: TypeAlias = Annotated[
    str,
    AfterValidator(_named("the URL of a collector", _SERVER + _PATH, "write one such as http://127.0.0.1:4318, in ASCII characters")),
]
WebhookUrl: TypeAlias = Annotated[
    str,
    AfterValidator(
        _named("the URL of a webhook", _SERVER + _PATH, "write one such as https://hooks.example.com/stream, in ASCII characters")
    ),
]


def _trace_path(value: str) -> str:
    if PATH.fullmatch(value) is None:
        message = f"{value!r} is not a path to a field of a record"
        fail_at((), "bad_value", message, "write names separated by dots from the root, such as $.traceparent or $.metadata.traceparent")
    return value


TracePath: TypeAlias = Annotated[str, AfterValidator(_trace_path)]
"""The path of the producer's ``traceparent`` in a JSON record."""


def _secret_reference(value: Any) -> str:
    try:
        return secret_reference(value)
    except ValueError:
        hint = "write {env: NAME}, {file: path} or {secrets_manager: name}"
        fail_at((), "bad_value", "a secret is given by reference, never as text", hint)


SecretReference: TypeAlias = Annotated[str, PlainValidator(_secret_reference), WithJsonSchema({"x-is": "secret"})]
"""``env:NAME``, ``file:path`` or ``secrets_manager:name``."""


def _location(value: str) -> str:
    scheme, colon, rest = value.partition(":")
    if scheme == "s3" and colon:
        problem = "two slashes follow s3:" if not rest.startswith("//") else problem_of_place(value)
        if problem and not is_recorded():
            fail_at(
                (), "bad_location", f"{value!r} is not a place to keep objects: {problem}", "write s3://bucket/prefix/ with single slashes"
            )
        return value
    if scheme == "memory" and colon:
        return value
    if scheme == "file" and rest and (not rest.startswith("//") or rest.startswith("///")):
        return value
    message = f"{value!r} is not a place for objects"
    fail_at((), "bad_location", message, "write s3://bucket/prefix/ or file:./directory")


Location: TypeAlias = Annotated[str, AfterValidator(_location)]
"""``s3://bucket/prefix/``, ``file:`` and a directory, or ``memory:`` for what need not outlive the process."""


def _start(value: Any) -> Start:
    if isinstance(value, Start):
        return value
    if isinstance(value, str) and value in {StartKind.TRIM_HORIZON, StartKind.LATEST}:
        return Start(StartKind(value))
    if isinstance(value, dict) and list(value) == [StartKind.AT_TIMESTAMP.value]:
        return Start(StartKind.AT_TIMESTAMP, _timestamp(value[StartKind.AT_TIMESTAMP.value]))
    hint = "write trim_horizon, latest, or {at_timestamp: 2026-01-01T00:00:00Z}"
    message = f"{value!r} is not a start position"
    fail_at((), "bad_value", message, hint)


def _timestamp(value: Any) -> datetime:
    hint = "write one such as 2026-01-01T00:00:00Z"
    try:
        parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        parsed = None
    if parsed is None:
        message = f"{value!r} is not a point in time"
        fail_at((), "bad_value", message, hint)
    if parsed.tzinfo is None:
        message = f"{value!r} has no time zone"
        fail_at((), "bad_value", message, hint)
    return parsed.astimezone(UTC)


def _start_text(start: Start) -> Any:
    if start.timestamp is None:
        return start.kind.value
    return {start.kind.value: start.timestamp.isoformat().replace("+00:00", "Z")}


_START_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"enum": [StartKind.TRIM_HORIZON.value, StartKind.LATEST.value]},
        {"type": "object", "properties": {"at_timestamp": {"type": "string"}}, "required": ["at_timestamp"], "additionalProperties": False},
    ]
}
StartPosition: TypeAlias = Annotated[Start, PlainValidator(_start), PlainSerializer(_start_text), WithJsonSchema(_START_SCHEMA)]

Config = TypeVar("Config", bound=BaseModel)


def _component(what: str, find: Callable[[str], type[Config] | None], names: Callable[[], Iterable[str]]) -> Callable[[Any], BaseModel]:
    """A validator of ``name`` or ``{name: options}``."""

    def validate(value: Any) -> BaseModel:
        if isinstance(value, BaseModel):
            return value
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict) or len(value) != 1:
            got = f"a mapping with the keys {', '.join(map(str, value))}" if isinstance(value, dict) else repr(value)
            message = f"a {what} is one name with its options, got {got}"
            several = isinstance(value, dict) and len(value) > 1 and set(map(str, value)) <= set(names())
            apart = f"begin each {what} with a dash of its own"
            fail_at((), "bad_component", message, apart if several else "write `name: options`, options indented deeper than the name")
        ((name, options),) = value.items()
        try:
            config = find(name)
        except DefinitionError as error:
            fail_at((name,), f"bad_{what}", str(error))
        if config is None:
            fail_at((name,), f"unknown_{what}", f"there is no {what} `{name}`", _near_component(name, names()))
        return _configured(config, name, options)

    return validate


_OTHER_NAMES: Final = {"jsonl": "json_lines", "ndjson": "json_lines", "jsonlines": "json_lines", "tsv": "csv", "text": "raw"}
"""What a decoder is called elsewhere."""


def _near_component(name: str, names: Iterable[str]) -> str:
    known = set(names)
    other = _OTHER_NAMES.get(name.lower(), "")
    return f"did you mean `{other}`?" if other in known else near_miss(name, known)


def _configured(config: type[Config], name: str, options: Any) -> Config:
    try:
        return config.model_validate({} if options is None else options)
    except ValidationError as error:
        lines = error.errors(include_url=False)
        fail_with([((name, *line["loc"], *_deeper(line)), _as_problem(line, _description(config, line["loc"]))) for line in lines])


def _description(config: type[BaseModel], loc: Path) -> str:
    return next((field.description or "" for name, field in config.model_fields.items() if loc and loc[-1] in {name, field.alias}), "")


def _deeper(line: Any) -> Path:
    """The path below the field at which one of our own errors places the problem."""
    path: Path = getattr(line.get("ctx", {}).get("error"), "path", ())
    return path


def _as_problem(line: Any, description: str) -> PydanticCustomError:
    context = line.get("ctx", {})
    if line["type"] == "finding":
        return problem(context["code"], context["message"], context["hint"])
    if line["type"] in {"missing", "extra_forbidden"}:
        return PydanticCustomError(line["type"], line["msg"])
    return problem("bad_value", *worded(line, description))


def _dump(component: BaseModel) -> dict[str, Any]:
    return {components.canonical_name(component): component.model_dump(mode="json", by_alias=True)}


Stage: TypeAlias = Annotated[
    StageConfig,
    PlainValidator(_component("stage", components.stage_class, components.stage_names)),
    PlainSerializer(_dump),
    WithJsonSchema({"x-is": "stage"}),
]
Decoder: TypeAlias = Annotated[
    DecoderConfig,
    PlainValidator(_component("decoder", components.DECODERS.get, lambda: components.DECODERS)),
    PlainSerializer(_dump),
    WithJsonSchema({"x-is": "decoder"}),
]
Sink: TypeAlias = Annotated[
    SinkConfig,
    PlainValidator(_component("sink", components.SINKS.get, lambda: components.SINKS)),
    PlainSerializer(_dump),
    WithJsonSchema({"x-is": "sink"}),
]
