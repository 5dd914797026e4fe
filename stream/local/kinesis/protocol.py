"""The wire formats: requests and replies in AWS JSON 1.1 and AWS CBOR 1.1.

Both carry the same members. They differ in two types: a blob is base64 text in JSON and a byte string in CBOR; a timestamp is a
number of seconds with a fraction in JSON and tag 1 over whole *milliseconds* in CBOR (RFC 8949 says seconds, so a standard decoder
fails on it).
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from stream.local.kinesis.errors import ApiError, malformed, unreadable

if TYPE_CHECKING:
    import cbor2

TARGET_PREFIX: Final = "Kinesis_20131202."

Members: TypeAlias = dict[str, Any]
"""A structure of the API by member name. Replies hold str, int, bool, None, lists, dicts and ``Timestamp``."""


class Wire(StrEnum):
    """The encoding of a request and of its reply; the value is the content type."""

    JSON = "application/x-amz-json-1.1"
    CBOR = "application/x-amz-cbor-1.1"

    @staticmethod
    def of(content_type: str) -> Wire:
        """The encoding of a request; anything that is not CBOR is taken for JSON."""
        return Wire.CBOR if "cbor" in content_type else Wire.JSON


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A moment in Unix milliseconds."""

    ms: int


@dataclass(frozen=True, slots=True)
class Records:
    """A reply whose member ``Records`` holds rendered JSON objects, with its other members."""

    rendered: Sequence[bytes]
    rest: Members


Reply: TypeAlias = Members | Records


class Params:
    """The members of one request, read with their types checked."""

    def __init__(self, members: Members) -> None:
        self.members = members

    def has(self, name: str) -> bool:
        """Whether the member is present and not null."""
        return self.members.get(name) is not None

    def text(self, name: str) -> str:
        """A required string."""
        value: str | None = self._typed(name, str)
        if value is None:
            raise _missing(name)
        return value

    def text_or(self, name: str, default: str) -> str:
        """A string, or ``default``."""
        value: str | None = self._typed(name, str)
        return default if value is None else value

    def integer(self, name: str, low: int, high: int) -> int:
        """A required whole number within ``low..high``."""
        value: int | None = self._typed(name, int)
        if value is None:
            raise _missing(name)
        if not low <= value <= high:
            message = f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: {low} to {high}."
            raise malformed(message)
        return value

    def integer_or(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number within ``low..high``, or ``default``."""
        return self.integer(name, low, high) if self.has(name) else default

    def moment(self, name: str) -> int:
        """A required timestamp, in Unix milliseconds."""
        value = self.members.get(name)
        if isinstance(value, Timestamp):
            return value.ms
        if isinstance(value, int | float) and not isinstance(value, bool):
            return round(value * 1000)
        if value is None:
            raise _missing(name)
        raise _wrong_type(name, value, "a timestamp")

    def structure(self, name: str) -> Params | None:
        """A nested structure, or None."""
        value: Members | None = self._typed(name, dict)
        return None if value is None else Params(value)

    def items(self, name: str) -> list[Any]:
        """A required list."""
        value: list[Any] | None = self._typed(name, list)
        if value is None:
            raise _missing(name)
        return value

    def _typed(self, name: str, kind: type) -> Any:
        value = self.members.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise _wrong_type(name, value, kind.__name__)
        return value


def decode(body: bytes, wire: Wire) -> Params:
    """The members of a request; an empty body has none.

    Raises:
        ApiError: ``SerializationException`` if the body is not a structure in that encoding.
    """
    if not body:
        return Params({})
    members = _decode_cbor(body) if wire is Wire.CBOR else _decode_json(body)
    if not isinstance(members, dict):
        message = f"the request body must be a structure, got {type(members).__name__}"
        raise unreadable(message)
    return Params(members)


def _decode_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_readable(Wire.JSON, error) from error


def _decode_cbor(body: bytes) -> Any:
    import cbor2  # an optional requirement, which those who only speak JSON do without

    try:
        return cbor2.loads(body, semantic_decoders={1: _cbor_timestamp})
    except cbor2.CBORDecodeError as error:
        raise _not_readable(Wire.CBOR, error) from error


def _not_readable(wire: Wire, error: Exception) -> ApiError:
    return unreadable(f"cannot read the request body as {wire}: {error}")


def encode(reply: Reply | None, wire: Wire) -> bytes:
    """The body of a reply; None is an operation without output."""
    if reply is None:
        return b""
    if isinstance(reply, Records):
        return _encode_records(reply, wire)
    if wire is Wire.CBOR:
        import cbor2

        return cbor2.dumps(reply, default=_cbor_default)
    return orjson.dumps(reply, default=_json_default, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def encode_error(error: ApiError, wire: Wire) -> bytes:
    """The body of an error reply."""
    return encode({"__type": error.code, "message": error.message}, wire)


def blob(value: object) -> tuple[bytes, int]:
    """A request's blob as base64 text and the number of bytes it stands for.

    Raises:
        ApiError: ``SerializationException`` if it is neither a byte string nor base64 text.
    """
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False), len(value)
    try:
        if isinstance(value, str):
            text = value.encode("ascii")
            return text, len(binascii.a2b_base64(text, strict_mode=True))
    except (binascii.Error, UnicodeEncodeError) as error:
        message = f"Data is not base64: {error}"
        raise unreadable(message) from error
    message = f"member Data must be base64 text or a byte string, got {type(value).__name__}"
    raise unreadable(message)


def _encode_records(reply: Records, wire: Wire) -> bytes:
    if wire is Wire.JSON:
        rest = encode(reply.rest, wire)
        return b'{"Records":[' + b",".join(reply.rendered) + b"]," + rest[1:]
    records = [
        {
            **record,
            "ApproximateArrivalTimestamp": Timestamp(round(record["ApproximateArrivalTimestamp"] * 1000)),
            "Data": binascii.a2b_base64(record["Data"]),
        }
        for record in map(orjson.loads, reply.rendered)
    ]
    return encode({"Records": records, **reply.rest}, wire)


def _cbor_timestamp(value: Any, immutable: bool) -> Timestamp:  # noqa: ARG001, FBT001 - signature of the decoder
    return Timestamp(round(value))


def _cbor_default(encoder: cbor2.CBOREncoder, value: object) -> None:
    if not isinstance(value, Timestamp):
        message = f"a reply cannot hold {value!r}"
        raise TypeError(message)
    import cbor2

    encoder.encode(cbor2.CBORTag(1, value.ms))


def _json_default(value: object) -> float:
    if not isinstance(value, Timestamp):
        message = f"a reply cannot hold {value!r}"
        raise TypeError(message)
    return value.ms / 1000


def _missing(name: str) -> ApiError:
    return malformed(f"1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null")


def _wrong_type(name: str, value: object, wanted: str) -> ApiError:
    return unreadable(f"member {name} must be {wanted}, got {type(value).__name__}")
