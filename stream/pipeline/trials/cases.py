"""Test cases of a pipeline: input records, and the expected results.

``flights.yaml`` has its cases in ``flights.test.yaml``::

    env: {MASK_KEY: any}                 # values for ${NAME} and for secrets
    tables: {s3://lake/t.parquet: t.csv} # local files in place of tables that are elsewhere
    cases:
      - name: a flight that left late
        given: [{json: {carrier: UA, delay: 5}}, {text: "{"}, {base64: e30=}]
        expect:
          rows: [{carrier: UA, delay: 5}]
          rejects: [{record: 2, reason: json_syntax}, {record: 3, reason: "missing_field:carrier"}]
          partitions: [month=2013-01]
      - {name: whatever comes, rows: any, count: 500, seed: 7}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stream.batch import Outcome
from stream.errors import DefinitionError
from stream.pipeline.findings import START, Finding, near_miss
from stream.pipeline.load import Document, load
from stream.pipeline.resources.databases import as_table, is_database
from stream.pipeline.resources.fetching import parse_table
from stream.pipeline.wording import worded
from stream.transform.types import near

SUFFIX: Final = ".test.yaml"
_FORMS: Final = ("json", "text", "base64")


class Part(BaseModel):
    """Base of all parts of a file of cases."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Record(Part):
    """One record, whose content is given by exactly one of `json`, `text` and `base64`. A plain text is short for `text`."""

    content: bytes = Field(description="The bytes of the record, whichever way they were given.")
    partition_key: str | None = Field(default=None, min_length=1, description="Partition key; by default, a different one per record.")
    arrival: datetime | None = Field(default=None, description="When the record reached the stream, with a zone.")

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, Mapping):
            return value
        given = [form for form in _FORMS if form in value]
        if len(given) != 1 or "content" in value:
            msg = "a record is either a text, or has exactly one of `json`, `text` and `base64`"
            if not given and not any(near(str(key), _FORMS) for key in value):
                msg += f"; one that is JSON is written {{json: {{{next(iter(value), '')}: ...}}}}"
            raise ValueError(msg)
        rest = {key: each for key, each in value.items() if key not in _FORMS}
        return {**rest, "content": _content(given[0], value[given[0]])}

    @field_validator("arrival")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            msg = f"{value.isoformat()} has no time zone; write one like 2026-01-01T00:00:00Z"
            raise ValueError(msg)
        return value


def _content(form: str, value: Any) -> bytes:
    if form == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if not isinstance(value, str):
        msg = f"`{form}` is {value!r}, not a text; put it in quotes"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only a ValueError into a finding
    if form == "text":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        msg = f"{value!r} is not base64: {error}"
        raise ValueError(msg) from error


class Reject(Part):
    """A dead letter. Only the options that are given are compared."""

    record: int = Field(ge=1, description="Which record, from 1.")
    reason: str | None = Field(default=None, description="Reason code.")
    stage: str | None = Field(default=None, description="`decode`, or place and name of the stage as in `2:cast`.")


class Expect(Part):
    """The expected results. Dead letters are always compared: if none are named, there must be none."""

    rows: tuple[dict[str, Any], ...] | dict[str, tuple[dict[str, Any], ...]] | None = Field(
        default=None, description="Rows in order, or those of each sink by its name; columns that are not named are not compared."
    )
    rejects: tuple[Reject, ...] = Field(default=(), description="The dead letters, in order.")
    outcomes: dict[str, int] | None = Field(default=None, description="Records by outcome, such as {written: 3, filtered: 1}.")
    partitions: tuple[str, ...] | dict[str, tuple[str, ...]] | None = Field(
        default=None, description="Directories of the files, or those of each sink by its name."
    )
    golden: str | None = Field(default=None, min_length=1, description="File with all rows and rejects; `--update` writes it.")

    @field_validator("outcomes")
    @classmethod
    def _known(cls, value: dict[str, int] | None) -> dict[str, int] | None:
        known = [outcome.label for outcome in Outcome if outcome is not Outcome.PENDING]
        for label in value or {}:
            if label not in known:
                msg = f"{label!r} is not an outcome; there are: {', '.join(known)}"
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.golden is not None and (self.rows is not None or self.rejects):
            msg = "with `golden`, the rows and rejects are in that file; remove `rows` and `rejects` here"
            raise ValueError(msg)
        return self


class Case(Part):
    """One case: either records and the expected results, or `rows: any`, which checks properties that hold for all records."""

    name: str = Field(min_length=1, description="What the case is about.")
    given: tuple[Record, ...] | None = Field(default=None, description="The records, in order.")
    expect: Expect | None = Field(default=None, description="What should become of them.")
    rows: Literal["any"] | None = Field(
        default=None,
        description=(
            "`any`: random records for the schema, good and bad. Each must have exactly one outcome, and the same one in a second run."
        ),
    )
    count: int = Field(default=200, ge=1, le=100_000, description="How many random records.")
    seed: int = Field(default=1, ge=0, description="Another seed gives other records.")

    @field_validator("rows", mode="before")
    @classmethod
    def _not_expected_ones(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            msg = "rows that are expected of records are written under `expect`: {rows: [...]}; here `rows: any` asks for random records"
            raise ValueError(msg)  # noqa: TRY004 - pydantic turns only a ValueError into a finding
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.rows is None and (self.given is None or self.expect is None):
            msg = "a case has `given` and `expect`, or `rows: any`"
            raise ValueError(msg)
        if self.rows is not None and (self.given is not None or self.expect is not None):
            msg = "`rows: any` uses random records: remove `given` and `expect`"
            raise ValueError(msg)
        return self


class CaseFile(Part):
    """A file of cases."""

    env: dict[str, str] = Field(default={}, description="Values for ${NAME} in the pipeline, and for secrets from the environment.")
    secrets: dict[str, str] = Field(default={}, description="Values for secrets of Secrets Manager, by their names in the pipeline.")
    tables: dict[str, str] = Field(default={}, description="Local files in place of tables or schemas at these URLs.")
    cases: tuple[Case, ...] = Field(description="The cases.")

    @field_validator("env", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: str(each) if isinstance(each, int) and not isinstance(each, bool) else each for key, each in value.items()}
        return value

    @field_validator("cases")
    @classmethod
    def _names(cls, value: tuple[Case, ...]) -> tuple[Case, ...]:
        if not value:
            msg = "a file of cases needs at least 1 case"
            raise ValueError(msg)
        names = [case.name for case in value]
        for name in names:
            if names.count(name) > 1:
                msg = f"two cases have the name {name!r}"
                raise ValueError(msg)
        return value


@dataclass(frozen=True, slots=True)
class Read:
    """The content of a file of cases. ``cases`` is None if the file has errors, which ``findings`` describe."""

    cases: CaseFile | None
    findings: tuple[Finding, ...]


def cases_path(pipeline: Path) -> Path:
    """Where the cases of a pipeline file are kept: ``flights.yaml`` has them in ``flights.test.yaml``."""
    return pipeline.with_name(pipeline.stem + SUFFIX)


def read_cases(path: Path, env: Mapping[str, str]) -> Read:
    """The cases in a file; ``env`` gives the values of ``${NAME}`` in it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        said = f"the file cannot be read: {error.strerror}"
        hint = "write the test cases there, or name their file by --cases; `stream init` writes an example" if not path.exists() else ""
        return Read(None, (Finding(str(path), START.line, START.column, "unreadable", said, hint),))
    document = load(content, str(path), env)
    if document.findings or document.data is None:
        return Read(None, document.findings)
    try:
        return Read(CaseFile.model_validate(document.data), ())
    except ValidationError as error:
        return Read(None, tuple(sorted(set(_findings(document, error)))))


def _findings(document: Document, error: ValidationError) -> Iterator[Finding]:
    for line in error.errors(include_url=False):
        loc = line["loc"]
        path: tuple[str | int, ...] = ()
        for part in loc:
            if (*path, part) in document.values:
                path = (*path, part)
        (message, hint), code = worded(line), "bad_value"
        at = document.value_position(path)
        if line["type"] == "extra_forbidden":
            code, message, hint = "unknown_key", f"there is no option `{loc[-1]}` here", near_miss(str(loc[-1]), _options(loc))
            at = document.key_position(path)
        elif line["type"] == "missing":
            code, message = "missing_key", f"`{loc[-1]}` is missing"
        yield Finding(document.file, at.line, at.column, code, message, hint)


def _options(loc: tuple[str | int, ...]) -> list[str]:
    words = [part for part in loc[:-1] if isinstance(part, str)]
    if words[-1:] == ["given"]:
        return [*_FORMS, "partition_key", "arrival"]
    models: dict[str, type[Part]] = {"cases": Case, "expect": Expect, "rejects": Reject}
    return list(models.get(words[-1] if words else "", CaseFile).model_fields)


def stand_ins(cases: CaseFile, base: Path) -> dict[str, bytes]:
    """Content of the files that stand in for tables, by the tables' URLs; for a database's of Parquet, CSV or NDJSON by their own suffix.

    Raises:
        DefinitionError: one cannot be read.
    """
    contents = {}
    for url, file in cases.tables.items():
        try:
            content = (base / file).read_bytes()
        except OSError as error:
            msg = f"the stand-in for {url} cannot be read: {base / file}: {error.strerror}"
            raise DefinitionError(msg) from error
        contents[url] = as_table(parse_table(file, content)) if is_database(url) else content
    return contents
